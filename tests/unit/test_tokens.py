"""Tokens: which are taken, which are refused and why; no message quotes one. And what a subject may declare."""

from __future__ import annotations

import base64
import json
import time
import warnings
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cdc import ConfigurationError, ConnectionFailed, Subject, SubscriptionError

SECRET = "a shared secret of more than thirty-two bytes, for every hash: 0123456789"
RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
HOUR = 3600


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": "well-owner", "role": "authenticated", "exp": now + HOUR, "nbf": now - 60} | more


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers)


def pem(key: Any) -> str:
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()  # type: ignore[no-any-return]


def der(key: Any) -> bytes:
    return key.public_key().public_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def jwk(key: Any, kind: Any, **more: Any) -> dict[str, Any]:
    return json.loads(kind.to_jwk(key.public_key())) | more  # type: ignore[no-any-return]


def forged(header: dict[str, Any], body: dict[str, Any], key: bytes = b"", raw: bytes | None = None) -> str:
    """A token as an attacker makes it, without the checks of a library."""
    import hashlib
    import hmac

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode() if raw is None else raw)}"
    return f"{head}.{part(hmac.new(key, head.encode(), hashlib.sha256).digest()) if key else ''}"


def refused(token: Any, match: str, **options: Any) -> None:
    given = {"key": SECRET} | options
    with pytest.raises(SubscriptionError, match=match) as caught:
        Subject.from_jwt(token, **given)
    told = str(caught.value)
    for part in str(token).split("."):
        assert len(part) < 8 or part not in told
    assert "well-owner" not in told and caught.value.__cause__ is None


def test_a_token_is_a_subject_with_its_role_and_all_its_claims() -> None:
    token = signed(app_metadata={"tenant": 7}, amount=1)
    subject = Subject.from_jwt(token, key=SECRET, settings={"app.tenant": "7"})
    assert subject.role == "authenticated" and subject.setting("app.tenant") == "7"
    told = json.loads(subject.setting("request.jwt.claims") or "")
    assert told == jwt.decode(token, SECRET, ["HS256"])
    assert subject.expires == told["exp"]
    assert Subject.from_jwt(token.encode(), key=SECRET.encode()).role == "authenticated"  # type: ignore[arg-type]
    assert Subject.from_jwt(signed(groups="staff"), key=SECRET, role_claim="groups").role == "staff"
    later = Subject.from_jwt(token, key=SECRET, leeway=30)
    assert later.expires == told["exp"] + 30


def test_claims_keep_the_text_that_the_token_has() -> None:
    """`->>` shows a number's digits: 1.50 is not 1.5, and a number may be too large for a float."""
    body = b'{"role": "authenticated", "n": 1.50, "big": 123456789012345678901234567890, "e": 1e2}'
    token = forged({"alg": "HS256"}, {}, SECRET.encode(), body)
    assert Subject.from_jwt(token, key=SECRET).setting("request.jwt.claims") == body.decode()


@pytest.mark.parametrize(
    ("private", "algorithm", "kind"),
    [
        (RSA, "RS256", jwt.algorithms.RSAAlgorithm),
        (RSA, "PS512", jwt.algorithms.RSAAlgorithm),
        (EC, "ES256", jwt.algorithms.ECAlgorithm),
        (ED, "EdDSA", jwt.algorithms.OKPAlgorithm),
    ],
    ids=["RS256", "PS512", "ES256", "EdDSA"],
)
def test_public_keys_in_every_form(private: Any, algorithm: str, kind: Any) -> None:
    token = signed(private, algorithm, {"kid": "two"})
    one = jwk(private, kind, kid="two")
    other = jwk(EC, jwt.algorithms.ECAlgorithm, kid="one")
    for key in (
        pem(private),
        pem(private).encode(),
        "\n" + pem(private),
        der(private),
        base64.b64encode(der(private)).decode(),
        private.public_key(),
        one,
        jwt.PyJWK.from_dict(one),
        {"keys": [other, one]},
        jwt.PyJWKSet.from_dict({"keys": [other, one]}),
    ):
        assert Subject.from_jwt(token, key=key).role == "authenticated"
        assert Subject.from_jwt(token, key=key, algorithms=[algorithm]).role == "authenticated"
        refused(signed(), "the token is refused: (it is signed with an algorithm|none of the keys)", key=key)
    refused(signed(private, algorithm, {"kid": "three"}), "none of the keys has its key id", key={"keys": [one]})
    refused(signed(private, algorithm), "none of the keys has its key id", key={"keys": [one]})


@pytest.mark.parametrize("form", ["pem", "pem bytes", "der", "base64", "jwk"])
def test_nobody_signs_with_a_public_key_as_with_a_secret(form: str) -> None:
    """The confusion of HS256 with RS256: what everybody knows must not be a shared secret."""
    key: Any = {
        "pem": pem(RSA),
        "pem bytes": pem(RSA).encode(),
        "der": der(RSA),
        "base64": base64.b64encode(der(RSA)).decode(),
        "jwk": jwk(RSA, jwt.algorithms.RSAAlgorithm),
    }[form]
    secret = json.dumps(key).encode() if isinstance(key, dict) else key if isinstance(key, bytes) else key.encode()
    token = forged({"alg": "HS256", "typ": "JWT"}, claims(), secret)
    refused(token, "it is signed with an algorithm that is not allowed here", key=key)
    with pytest.raises(ConfigurationError, match="algorithms: HS256; a key of this kind verifies PS256, "):
        Subject.from_jwt(token, key=key, algorithms=["HS256", "RS256"])
    if form == "jwk":
        with pytest.raises(ConfigurationError, match="key: give a JWK as a dict"):
            Subject.from_jwt(token, key=json.dumps(key))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_no_algorithm_is_no_algorithm(name: str) -> None:
    token = forged({"alg": name, "typ": "JWT"}, claims())
    for key in (SECRET, pem(RSA)):
        refused(token, "it is signed with an algorithm that is not allowed here", key=key)
        with pytest.raises(ConfigurationError, match=f"algorithms: {name}; a key of this kind verifies"):
            Subject.from_jwt(token, key=key, algorithms=[name])


@pytest.mark.parametrize(
    ("token", "match"),
    [
        (signed(exp=1), "the token is refused: it has expired"),
        (signed(nbf=int(time.time()) + HOUR), "it is not valid yet"),
        (signed(iat=int(time.time()) + HOUR), "it is not valid yet"),
        (signed("another secret of more than thirty-two bytes"), "its signature does not fit the key"),
        (signed(aud="elsewhere"), "it has an audience"),
        ("Bearer " + signed(), "it begins with Bearer"),
        (forged({"alg": "HS256"}, claims(sub=7), SECRET.encode()), "its claim sub is not text"),
        (signed(role=None), "the token has no role: its claim 'role' is missing or is not text"),
        (signed(role=["postgres"]), "the token has no role"),
        (signed(role=""), "the token has no role"),
        (forged({"alg": "HS256"}, claims(exp="soon"), SECRET.encode()), "it cannot be read"),
        (forged({"alg": "HS256"}, claims(exp=None), SECRET.encode()), "it cannot be read"),
        (
            forged({"alg": "HS256"}, claims(exp=str(int(time.time()) + HOUR)), SECRET.encode()),
            "the claim exp is no number",
        ),
        (forged({"alg": "HS256"}, claims(exp=True), SECRET.encode(), None), "(it has expired|the claim exp)"),
        (forged({"alg": "HS256"}, {}, SECRET.encode(), b"[1]"), "it cannot be read"),
        (forged({"alg": "HS256"}, {}, SECRET.encode(), b"\xff\xfe"), "it cannot be read"),
        (forged({"alg": "HS256"}, {}, SECRET.encode(), json.dumps(claims()).encode("utf-16")), "it cannot be read"),
        (forged({"alg": "HS256"}, {}, SECRET.encode(), b"[" * 100_000), "it cannot be read"),
        (
            forged({"alg": "HS256"}, {}, SECRET.encode(), b'{"role": "authenticated", "a": "\\u0000"}'),
            "claims are not JSON",
        ),
        (forged({"alg": "HS256"}, {}, SECRET.encode(), b'{"role": "authenticated", "a": NaN}'), "claims are not JSON"),
        ("", "the token is refused: it is not one"),
        ("well-owner", "it is not one"),
        ("a.b.c", "it cannot be read"),
        ("...", "it is not one"),
        ("..", "it cannot be read"),
        (b"\xff.\xff.\xff", "it cannot be read"),
        (None, "it is not one"),
        (7, "it is not one"),
        ("é" * 20 + "." + "é" * 20 + ".", "it cannot be read"),
    ],
    ids=lambda value: value[:40].replace("\x00", "") if isinstance(value, str) and " " in value else "token",
)
def test_what_is_refused(token: Any, match: str) -> None:
    refused(token, match)


def test_a_claim_that_was_changed_is_noticed() -> None:
    head, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(role="service_role")).encode()).rstrip(b"=").decode()
    refused(f"{head}.{body}.{signature}", "its signature does not fit the key")
    refused(f"{head}.{body}.", "its signature does not fit the key")


def test_audience_and_issuer() -> None:
    token = signed(aud=["authenticated"], iss="https://issuer")
    for audience in ("authenticated", ["other", "authenticated"]):
        assert Subject.from_jwt(token, key=SECRET, audience=audience, issuer="https://issuer").role == "authenticated"
    refused(token, "its audience", audience="other")
    refused(token, "it has an audience \\(aud\\), and audience= names none")
    refused(token, "its issuer", audience="authenticated", issuer="https://other")
    refused(signed(), "it lacks the claim", audience="authenticated")


def test_leeway_is_for_clocks_that_differ() -> None:
    token = signed(exp=int(time.time()) - 5)
    refused(token, "it has expired")
    assert Subject.from_jwt(token, key=SECRET, leeway=3600).role == "authenticated"
    for wrong in (-1, "5", None, True, float("inf"), float("nan")):
        with pytest.raises(SubscriptionError, match="leeway is a number of seconds"):
            Subject.from_jwt(token, key=SECRET, leeway=wrong)  # type: ignore[arg-type]
        with pytest.raises(SubscriptionError, match="leeway is a number of seconds"):
            Subject("anon", leeway=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"key": ""}, "key: the shared secret is empty"),
        ({"key": b"  "}, "key: the shared secret is empty"),
        ({"key": "-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----"}, "not a public one that can be read"),
        ({"key": "ssh-rsa AAAA"}, "not a public one that can be read"),
        ({"key": None}, "key: NoneType is neither"),
        ({"key": RSA}, "key: RSAPrivateKey is neither"),
        ({"key": {"kty": "none"}}, "the key is a JWK that cannot be used"),
        ({"key": {"keys": []}}, "the key is a JWK that cannot be used"),
        ({"key": SECRET, "algorithms": []}, "algorithms: none; a key of this kind verifies HS256, HS384, HS512"),
        ({"key": SECRET, "algorithms": "HS256"}, "algorithms is a list"),
        ({"key": SECRET, "algorithms": ["RS256"]}, "algorithms: RS256; a key of this kind verifies HS256"),
        ({"key": SECRET, "algorithms": 7}, "algorithms is a list"),
    ],
)
def test_keys_that_cannot_be_used(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Subject.from_jwt(signed(), **options)


def test_a_private_key_is_not_for_verifying() -> None:
    text = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with pytest.raises(ConfigurationError, match="not a public one that can be read"):
        Subject.from_jwt(signed(), key=text)


def test_a_client_of_a_jwks_address() -> None:
    one = jwk(RSA, jwt.algorithms.RSAAlgorithm, kid="two")

    class Client(jwt.PyJWKClient):
        def fetch_data(self) -> Any:
            return {"keys": [one]}

    client = Client("https://issuer/jwks")
    assert Subject.from_jwt(signed(RSA, "RS384", {"kid": "two"}), key=client).role == "authenticated"
    refused(signed(RSA, "RS256", {"kid": "three"}), "no key of the JWKS address has its key id", key=client)
    refused(signed(headers={"kid": "two"}), "an algorithm that is not allowed", key=client)
    with pytest.raises(ConnectionFailed, match="the keys that verify tokens cannot be had"):
        Subject.from_jwt(signed(RSA, "RS256", {"kid": "two"}), key=jwt.PyJWKClient("http://127.0.0.1:9/jwks"))


def test_a_megabyte_of_claims_is_read_quickly() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token = signed(notes=["x" * 100] * 10_000)
        began = time.process_time()
        subject = Subject.from_jwt(token, key=SECRET)
        assert time.process_time() - began < 2
    assert len(subject.setting("request.jwt.claims") or "") > 1_000_000


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(ConfigurationError, match=r'pip install "wells-cdc\[jwt\]"'):
        Subject.from_jwt("a.b.c", key=SECRET)


@pytest.mark.parametrize("exp", ['"soon"', "null", "true", "[1]", "{}", "1e999", '"1700000000"'])
def test_claims_that_end_have_to_say_when(exp: str) -> None:
    for text in (f'{{"exp": {exp}}}', f'{{"\\u0065xp": {exp}}}', f'{{"exp": 1, "exp": {exp}}}'):
        with pytest.raises(SubscriptionError, match="the claim exp is no number of seconds"):
            Subject("anon", text)
        with pytest.raises(SubscriptionError, match="the claim exp is no number of seconds"):
            Subject("anon", settings={"request.jwt.claims": text})


def test_when_claims_end() -> None:
    assert Subject("anon").expires is None
    assert Subject("anon", {"sub": "exp", "meta": {"exp": "x"}}).expires is None
    assert Subject("anon", {"exp": 1700000000}).expires == 1_700_000_000
    assert Subject("anon", {"exp": 1700000000.5}, leeway=10).expires == 1_700_000_010.5
    assert Subject("anon", settings={"request.jwt.claims": "no JSON"}).expires is None
    assert Subject("anon", settings={"request.jwt.claims": '{"exp": 5}'}).expires == 5


def test_settings_without_a_dot() -> None:
    subject = Subject("anon", settings={"timezone": "europe/rome", "SESSION_AUTHORIZATION": "Login"})
    assert subject.setting("TimeZone") == "Europe/Rome"
    assert subject.setting("session_authorization") == "Login"
    assert repr(subject) == "<Subject 'anon'; settings: session_authorization, timezone>"
    assert Subject("anon", settings={"TimeZone": "UTC"}).setting("timezone") == "UTC"


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("TimeZone", "Mars/Olympus", "which is no time zone"),
        ("TimeZone", "", "which is no time zone"),
        ("TimeZone", "../../etc/passwd", "which is no time zone"),
        ("TimeZone", "localtime", "which is no time zone"),
        ("TimeZone", "right/UTC", "which is no time zone"),
        ("TimeZone", 5, "not text that PostgreSQL can hold"),
        ("session_authorization", "", "is the name of a role"),
        ("session_authorization", "x" * 64, "is the name of a role"),
        ("role", "postgres", "not the name of a custom setting"),
        ("search_path", "app", "Without one, there are TimeZone and session_authorization"),
    ],
)
def test_settings_that_cannot_be(name: str, value: Any, match: str) -> None:
    with pytest.raises(SubscriptionError, match=match):
        Subject("anon", settings={name: value})
