-- The roles and functions of a Supabase database that row-level security policies lean on.
-- Can be applied again and again: to one database, to several of one server, and at the same time.

do $$
declare
  attributes text;
  wanted text;
begin
  for wanted, attributes in
    values ('anon', 'nologin noinherit'),
           ('authenticated', 'nologin noinherit'),
           ('service_role', 'nologin noinherit bypassrls')
  loop
    begin
      execute format('create role %I %s', wanted, attributes);
    exception
      -- Roles belong to the whole server: another database has made it before, or makes it right now.
      when duplicate_object or unique_violation then null;
    end;
  end loop;
end
$$;

create schema if not exists auth;

create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;

create or replace function auth.role() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;

create or replace function auth.email() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

grant usage on schema auth, public to anon, authenticated, service_role;
