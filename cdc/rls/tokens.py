"""JSON Web Tokens: verified by PyJWT, which the extra `jwt` brings.

The one file of `rls` that asks for the time, since a token is valid for a while; a client of a JWKS address may ask the
network. Which algorithms may have signed follows from the key and never from the token: a public key verifies
signatures of its own kind only, so that nobody can sign with it as if it were a shared secret. No message quotes a
token, which is as good as a password while it is valid.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from cdc.errors import ConfigurationError, ConnectionFailed, SubscriptionError

__all__ = ["verified"]

_SECRET = frozenset({"HS256", "HS384", "HS512"})
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
_EDWARDS = frozenset({"EdDSA"})

_PROBLEMS = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet: nbf or iat lies in the future",
    "InvalidAlgorithmError": "it is signed with an algorithm that is not allowed here",
    "InvalidAudienceError": "its audience (aud) is not the one that audience= names",
    "InvalidIssuerError": "its issuer (iss) is not the one that issuer= names",
    "InvalidSignatureError": "its signature does not fit the key",
    "InvalidSubjectError": "its claim sub is not text",
    "MissingRequiredClaimError": "it lacks the claim that audience= or issuer= asks for",
}


def verified(
    token: object, key: object, algorithms: object, audience: object, issuer: object, leeway: float
) -> tuple[dict[str, Any], str]:
    """The claims of a token, and the JSON text that they are; for the arguments see `Subject.from_jwt`.

    Raises SubscriptionError for a token that is not valid, ConfigurationError for a key or algorithms that cannot be
    used, ConnectionFailed when the keys of a JWKS address cannot be had.
    """
    jwt = _library()
    if isinstance(token, bytes):
        token = token.decode("ascii", "replace")
    if isinstance(token, str) and token.lower().startswith("bearer "):
        raise _refused("it begins with Bearer, which is the header's: give what stands behind it")
    if not isinstance(token, str) or token.count(".") != 2:
        raise _refused("it is not one: three parts with dots between them are needed")
    found = _key_of(jwt, key, token)
    allowed = _allowed(found, key)
    chosen = _chosen(algorithms, allowed)
    try:
        claims: dict[str, Any] = jwt.decode(
            token, found, algorithms=sorted(chosen), audience=audience, issuer=issuer, leeway=leeway
        )
        payload = token.split(".")[1]
        return claims, base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    except jwt.InvalidKeyError:
        raise ConfigurationError("the key cannot be used to verify tokens: PyJWT refuses it") from None
    except jwt.PyJWTError as error:
        if isinstance(error, jwt.InvalidAudienceError) and audience is None:
            raise _refused('it has an audience (aud), and audience= names none: Supabase has "authenticated"') from None
        raise _refused(_PROBLEMS.get(type(error).__name__, "it cannot be read")) from None
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        raise _refused("it cannot be read") from None


def _library() -> Any:
    try:
        import jwt
    except ImportError:
        raise ConfigurationError('Subject.from_jwt needs PyJWT: pip install "wells-cdc[jwt]"') from None
    return jwt


def _refused(problem: str) -> SubscriptionError:
    return SubscriptionError(f"the token is refused: {problem}")


def _chosen(algorithms: object, allowed: frozenset[str]) -> frozenset[str]:
    """Those that the caller names, else all that fit the key."""
    if algorithms is None:
        return allowed
    if isinstance(algorithms, str) or not isinstance(algorithms, Iterable):
        raise ConfigurationError(f'algorithms is a list such as ["RS256"], not {algorithms!r}')
    names = frozenset(algorithms)
    if not names or names - allowed:
        wrong = ", ".join(sorted(map(str, names - allowed))) or "none"
        raise ConfigurationError(f"algorithms: {wrong}; a key of this kind verifies {', '.join(sorted(allowed))}")
    return names


def _key_of(jwt: Any, key: object, token: str) -> Any:
    """The key for this token: bytes of a shared secret, or a public key of `cryptography`."""
    if callable(getattr(key, "get_signing_key_from_jwt", None)):
        key = _asked(jwt, key, token)
    try:
        if isinstance(key, dict) and "keys" in key:
            key = jwt.PyJWKSet.from_dict(key)
        if isinstance(key, jwt.PyJWKSet):
            key = _of_set(jwt, key, token)
        if isinstance(key, dict):
            key = jwt.PyJWK.from_dict(key)
    except jwt.PyJWTError:
        raise ConfigurationError("the key is a JWK that cannot be used: PyJWT refuses it") from None
    if isinstance(key, jwt.PyJWK):
        key = key.key
    if isinstance(key, str | bytes):
        data = key.encode() if isinstance(key, str) else key
        return _public(data) or _secret(data)
    return key


def _asked(jwt: Any, client: Any, token: str) -> object:
    try:
        return client.get_signing_key_from_jwt(token)
    except jwt.exceptions.PyJWKClientConnectionError as error:
        raise ConnectionFailed(f"the keys that verify tokens cannot be had: {error}") from None
    except jwt.PyJWTError:
        raise _refused("no key of the JWKS address has its key id (kid)") from None


def _of_set(jwt: Any, keys: Any, token: str) -> object:
    try:
        return keys[jwt.get_unverified_header(token).get("kid")]
    except (KeyError, TypeError):
        raise _refused("none of the keys has its key id (kid)") from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _refused("it cannot be read") from None


def _secret(data: bytes) -> bytes:
    """A shared secret, when the text is nothing else."""
    text = data.strip()
    if not text:
        raise ConfigurationError("key: the shared secret is empty")
    if text.startswith((b"-----BEGIN", b"ssh-", b"ecdsa-sha2-")):
        raise ConfigurationError("key: this is a key in text form, but not a public one that can be read")
    if text.startswith(b"{"):
        raise ConfigurationError("key: give a JWK as a dict, as json.loads() makes it")
    return data


def _public(data: bytes) -> Any:
    """The public key that the text is: PEM, a certificate, or the same without its frame; None when it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    text = data.strip()
    try:
        if text.startswith(b"-----BEGIN CERTIFICATE"):
            return load_pem_x509_certificate(text).public_key()
        if text.startswith(b"-----BEGIN"):
            return load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        return None
    for candidate in (data, _unframed(text)):
        try:
            return load_der_public_key(candidate)
        except (ValueError, UnsupportedAlgorithm):
            continue
    return None


def _unframed(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _allowed(found: object, given: object) -> frozenset[str]:
    """The algorithms that a key of this kind verifies."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(found, bytes):
        return _SECRET
    if isinstance(found, rsa.RSAPublicKey):
        return _RSA
    if isinstance(found, ec.EllipticCurvePublicKey) and found.curve.name in _CURVES:
        return frozenset({_CURVES[found.curve.name]})
    if isinstance(found, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return _EDWARDS
    raise ConfigurationError(
        f"key: {type(given).__name__} is neither a shared secret nor a public key: give text, a PEM, a JWK as a dict, "
        "a key of cryptography, or a jwt.PyJWKClient"
    )
