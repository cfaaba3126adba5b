"""The questions about rights, as SQL: what makes up the rights on tables, and the roles that they are given to.

May be sent to a server by whoever has a connection; nothing is asked here. `FACTS` stands word for word in
`sql/10_rights.sql`, too, whose event trigger asks the same: so what it writes and what is read here cannot differ.
Everything is named with its schema, so that a search_path cannot put others in its place; what a version does not
have is read through `to_jsonb`. The manual: "System Catalogs" and "Privileges".
"""

from __future__ import annotations

__all__ = ["FACTS", "FORMAT", "PLAIN_CASE", "ROLES"]

FORMAT = 1
"""Of the facts; another one is another release's."""

PLAIN_CASE = r"""pg_catalog.substring(CASE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                WHEN 'c' THEN d.datctype::text
                ELSE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
            END, '^[A-Za-z]+') IN (
                'C', 'POSIX', 'PG', 'und', 'ar', 'bg', 'ca', 'cs', 'da', 'de', 'el', 'en', 'es', 'et', 'fi', 'fr', 'he',
                'hi', 'hr', 'hu', 'id', 'it', 'ja', 'ko', 'lv', 'nb', 'nl', 'nn', 'no', 'pl', 'pt', 'ro', 'ru', 'sk',
                'sl', 'sr', 'sv', 'th', 'uk', 'vi', 'zh')"""
"""Whether i and I are each other's case in the language of the database `d`, as far as known."""

FACTS = (
    r"""
WITH RECURSIVE asked AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
           n.nspname, n.nspowner, n.nspacl
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY ($1::oid[]) AND c.relkind IN ('r', 'p')
), policy AS MATERIALIZED (
    SELECT p.polrelid AS relation, p.polname, p.polpermissive, p.polcmd, p.polroles, p.polqual::text AS tree,
           pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS expression
    FROM pg_catalog.pg_policy p WHERE p.polrelid = ANY ($1::oid[]) AND p.polcmd IN ('*', 'r')
), own AS MATERIALIZED (
    SELECT f.oid, pg_catalog.lower(f.proname) AS name, f.prolang = 14 AND f.prosqlbody IS NULL AS is_text,
           pg_catalog.lower(f.prosrc) AS body
    FROM pg_catalog.pg_proc f WHERE f.oid >= 16384
), called (relation, function, operator, tree) AS (
    SELECT p.relation, 0::oid, 0::oid, p.tree FROM policy p WHERE p.tree IS NOT NULL
    UNION
    SELECT c.relation, f.oid, mentioned.operator, f.prosqlbody::text
    FROM called c, LATERAL (
        SELECT found[1]::oid, 0::oid
        FROM pg_catalog.regexp_matches(c.tree, ':(?:funcid|opfuncid) ([0-9]{1,10})\y', 'g') AS found
        UNION
        SELECT o.oprcode, o.oid
        FROM pg_catalog.regexp_matches(c.tree, ':opnos? (?:\(o )?([0-9][0-9 ]*)', 'g') AS found,
            pg_catalog.regexp_split_to_table(pg_catalog.btrim(found[1]), ' +') AS number
        JOIN pg_catalog.pg_operator o ON o.oid = number::oid
        UNION
        -- A body that is a string names what it calls; any function of such a name may be meant.
        SELECT named.oid, 0::oid FROM own caller JOIN own named ON pg_catalog.strpos(caller.body, named.name) > 0
        WHERE caller.oid = c.function AND caller.is_text
    ) AS mentioned (function, operator)
    JOIN pg_catalog.pg_proc f ON f.oid = mentioned.function
), described AS MATERIALIZED (
    SELECT f.oid, pg_catalog.jsonb_build_object(
        'schema', n.nspname, 'name', f.proname, 'arguments', pg_catalog.pg_get_function_identity_arguments(f.oid),
        'language', l.lanname, 'body', f.prosrc, 'tree', f.prosqlbody::text, 'definer', f.prosecdef,
        'settings', f.proconfig, 'result', f.prorettype::bigint, 'set', f.proretset, 'count', f.pronargs,
        'kind', f.prokind, 'volatility', f.provolatile, 'owner', f.proowner::bigint,
        'execute', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
                    FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) g
                    WHERE g.privilege_type = 'EXECUTE')) AS facts
    FROM pg_catalog.pg_proc f
    JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace JOIN pg_catalog.pg_language l ON l.oid = f.prolang
    WHERE f.oid IN (SELECT c.function FROM called c)
), server AS MATERIALIZED (
    SELECT pg_catalog.jsonb_build_object(
        'utf8', pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8',
        'nondeterministic', (SELECT pg_catalog.jsonb_agg(l.oid::bigint ORDER BY l.oid)
                             FROM pg_catalog.pg_collation l WHERE NOT l.collisdeterministic),
        'code_point', (
            SELECT pg_catalog.jsonb_agg(plain.oid::bigint ORDER BY plain.oid)
            FROM (SELECT l.oid FROM pg_catalog.pg_collation l
                  WHERE (l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX') AND l.collctype IN ('C', 'POSIX'))
                     OR (l.collprovider = 'b' AND pg_catalog.to_jsonb(l) ->> 'colllocale' = 'C')
                  UNION SELECT 100::oid
                  WHERE CASE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                      WHEN 'c' THEN d.datcollate IN ('C', 'POSIX') AND d.datctype IN ('C', 'POSIX')
                      WHEN 'b' THEN pg_catalog.to_jsonb(d) ->> 'datlocale' = 'C'
                  END) AS plain),
        -- The database's own, when its language is one in which i and I are each other's case.
        'plain_case', (
            SELECT pg_catalog.jsonb_build_array(100)
            WHERE """
    + PLAIN_CASE
    + r""")) AS facts
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
)
SELECT a.oid, server.facts || pg_catalog.jsonb_build_object(
    'format', 1,
    'schema', a.nspname,
    'table', a.relname,
    'owner', a.relowner::bigint,
    'row_security', a.relrowsecurity,
    'forced', a.relforcerowsecurity,
    'usage', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
              FROM pg_catalog.aclexplode(coalesce(a.nspacl, pg_catalog.acldefault('n', a.nspowner))) g
              WHERE g.privilege_type = 'USAGE'),
    'select', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
               FROM pg_catalog.aclexplode(coalesce(a.relacl, pg_catalog.acldefault('r', a.relowner))) g
               WHERE g.privilege_type = 'SELECT'),
    'columns', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            t.attnum, t.attname, t.atttypid::bigint, y.typbasetype::bigint,
            (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint) FROM pg_catalog.aclexplode(t.attacl) g
             WHERE g.privilege_type = 'SELECT')) ORDER BY t.attnum)
        FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_type y ON y.oid = t.atttypid
        WHERE t.attrelid = a.oid AND t.attnum > 0 AND NOT t.attisdropped),
    'policies', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.polname, 'permissive', p.polpermissive,
            'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' ELSE 'ALL' END,
            'roles', p.polroles::bigint[], 'tree', p.tree, 'expression', p.expression,
            'to', ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(role)::text END
                        FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS u(role, place) ORDER BY place)
            ) ORDER BY p.polname)
        FROM policy p WHERE p.relation = a.oid),
    'operators', (
        SELECT pg_catalog.jsonb_object_agg(o.oid, pg_catalog.jsonb_build_array(
            CASE n.nspname WHEN 'pg_catalog' THEN o.oprname::text ELSE n.nspname || '.' || o.oprname END,
            o.oprcode::oid::bigint))
        FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
        WHERE o.oid IN (SELECT c.operator FROM called c WHERE c.relation = a.oid AND c.operator <> 0)),
    'functions', (
        SELECT pg_catalog.jsonb_object_agg(f.oid, f.facts) FROM described f
        WHERE f.oid IN (SELECT c.function FROM called c WHERE c.relation = a.oid))
) AS facts
FROM asked a, server
"""
)
"""OID and facts, as jsonb, of each table of `$1`, an array of OIDs. The facts say who was granted what, by OID."""

ROLES = """
WITH RECURSIVE reached (oid) AS (
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1)
    UNION
    SELECT m.roleid FROM reached JOIN pg_catalog.pg_auth_members m ON m.member = reached.oid
)
SELECT pg_catalog.jsonb_build_object(
    'roles', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            r.oid::bigint, r.rolname, r.rolsuper, r.rolbypassrls, r.rolinherit,
            (SELECT pg_catalog.substr(setting, 10)
             FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) setting
             WHERE pg_catalog.lower(setting) LIKE 'timezone=%' AND s.setrole IN (0, r.oid)
               AND s.setdatabase IN (0, d.oid)
             ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1)) ORDER BY r.oid)
        FROM reached JOIN pg_catalog.pg_roles r USING (oid)),
    'members', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            m.member::bigint, m.roleid::bigint, pg_catalog.to_jsonb(m) -> 'inherit_option')
            ORDER BY m.member, m.roleid, m.grantor)
        FROM reached JOIN pg_catalog.pg_auth_members m ON m.member = reached.oid),
    'database_owner', d.datdba::bigint,
    'by_membership', pg_catalog.current_setting('server_version_num')::int >= 160000,
    'zone', (SELECT g.reset_val FROM pg_catalog.pg_settings g
             WHERE g.name = 'TimeZone'
               AND g.source IN ('default', 'configuration file', 'command line', 'override', 'session')
               -- What the session began with may be what this login was given for its own sessions.
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) setting
                               WHERE pg_catalog.lower(setting) LIKE 'timezone=%'
                                 AND s.setrole = (SELECT l.oid FROM pg_catalog.pg_roles l
                                                  WHERE l.rolname = session_user)))
)::text
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
"""The roles named in `$1`, an array of names, and all whose rights they may have, as the text of one JSON object."""
