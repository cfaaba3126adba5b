"""The configuration of `cdc run`: a TOML file and `CDC_*` variables, checked and named before anything starts.

Reads one file and the environment. What is wrong is said in one message with the file or the variable and the key,
never with the value: a value may be a secret.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from cdc.errors import ConfigurationError

__all__ = [
    "REDIS",
    "Config",
    "HttpConfig",
    "LogConfig",
    "SubscriptionConfig",
    "keys",
    "load_config",
    "misspelt",
    "variable",
]

REDIS = "redis-invalidate"
"""The sink that is no file."""

_PREFIX = "CDC_"
_NOT_OURS = {"CDC_CONFIG", "CDC_PG_BIN"}
_EXAMPLE = """
[[subscription]]
table = "wells"
operations = ["insert", "update", "delete", "truncate"]
sink = "stdout"
"""


def _listed(value: object) -> object:
    """One name as a list of one; a variable may hold a JSON list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("should be a name or a JSON list of names") from None
    return [value] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_Name = Annotated[str, Field(min_length=1)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Operation = Annotated[Literal["insert", "update", "delete", "truncate"], BeforeValidator(_lower)]


class _Section(BaseModel):
    """A table of the file: it refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class LogConfig(_Section):
    """`[log]`: what is logged to stderr, and how it looks."""

    format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = "auto"
    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"


class HttpConfig(_Section):
    """`[http]`: where `/healthz` answers."""

    host: _Name = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]


class SubscriptionConfig(_Section):
    """`[[subscription]]`: which changes go where. Claims and settings are left out when it is printed."""

    table: _Name
    operations: Annotated[list[_Operation], Field(min_length=1)] | None = None
    filter: _Name | None = None
    sink: _Name | None = None
    handler: _Name | None = None
    role: _Name | None = None
    claims: Annotated[dict[str, Any] | None, Field(repr=False)] = None
    settings: Annotated[dict[str, str] | None, Field(repr=False)] = None
    accept_undecided: bool = False
    name: _Name | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    on_error: Literal["stop", "park"] = "stop"
    snapshot: bool = False
    redis: SecretStr | None = None
    keys: Annotated[list[_Name] | None, BeforeValidator(_listed)] = None
    publish: _Name | None = None
    tombstone_ttl: _Seconds | None = None
    clears_at_start: bool = True
    sweeps: bool = False

    @model_validator(mode="after")
    def _complete(self) -> SubscriptionConfig:
        if self.sink is None and self.handler is None:
            raise ValueError('goes nowhere: give sink = "stdout", sink = "FILE" or handler = "module:name"')
        if self.sink != REDIS and (self.redis, self.keys, self.publish, self.tombstone_ttl) != (None,) * 4:
            raise ValueError('has redis, keys, publish or tombstone_ttl, which go with sink = "redis-invalidate"')
        if self.sink == REDIS and (self.redis is None or self.keys is None):
            raise ValueError(
                'lacks redis or keys: sink = "redis-invalidate" needs redis = "redis://127.0.0.1:6379/0" and '
                'keys = ["well:{id}"]'
            )
        if self.role is None and (self.claims is not None or self.settings is not None):
            raise ValueError("has claims or settings but no role: say as whom to look, such as role = 'authenticated'")
        return self


class Config(BaseSettings):
    """Everything that `cdc run` can be told. Get one from `load_config`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        hide_input_in_errors=True,
        frozen=True,
    )

    dsn: SecretStr
    publication: Annotated[list[_Name], NoDecode, BeforeValidator(_listed), Field(min_length=1)] = ["wells"]
    slot: _Name | None = None
    temporary: bool = False
    state: _Name = "database"
    on_gap: Literal["stop", "deliver", "resync"] | None = None
    fallback: Literal["poll"] | None = None
    require_subject: bool = False
    backoff_first: _Seconds = 2.0
    backoff_longest: _Seconds = 32.0
    rights_interval: _Seconds = 5.0
    streaming: Annotated[Literal["on", "off", "parallel"], BeforeValidator(_lower)] = "on"
    two_phase: bool = False
    spool_memory: Annotated[int, Field(ge=0)] = 16 << 20
    spool_folder: _Name | None = None
    park_file: _Name | None = None
    wait_for_slot: Annotated[float, Field(ge=0)] = 5.0
    failover: bool = False
    session_functions: Annotated[list[_Name], NoDecode, BeforeValidator(_listed)] = []
    rights_dsn: SecretStr | None = None
    log: LogConfig = LogConfig()
    http: HttpConfig | None = None
    subscription: list[SubscriptionConfig] = []

    @model_validator(mode="after")
    def _complete(self) -> Config:
        if self.slot is None and not self.temporary:
            raise ValueError(
                'slot is missing: give slot = "NAME", which remembers across runs (or the variable CDC_SLOT), '
                "or temporary = true to begin anew at each start"
            )
        if self.slot is not None and self.temporary:
            raise ValueError("slot and temporary = true exclude each other: leave out one of them")
        if self.backoff_longest < self.backoff_first:
            raise ValueError("backoff_longest is less than backoff_first")
        if not self.subscription:
            raise ValueError(f"there is no [[subscription]], so there is nothing to do. Write at the end:\n{_EXAMPLE}")
        return self


def load_config(path: str | None) -> Config:
    """The configuration in the file `path` (None: no file) and in the environment, which wins.

    Raises ConfigurationError, which names the file or the variable, and the key.
    """
    if path is not None:
        _check_file(path)

    try:
        return _reader(path)()
    except ValidationError as error:
        problems = [_problem(each["loc"], each["type"], each["msg"], path) for each in error.errors()]
        raise ConfigurationError("; ".join(dict.fromkeys(problems))) from None
    except SettingsError as error:
        raise _not_json(error) from None


def _reader(path: str | None) -> Callable[[], Config]:
    """What reads the environment and, behind it, the file."""

    class Loaded(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (env_settings,) if path is None else (env_settings, TomlConfigSettingsSource(settings_cls, path))

    return cast("Callable[[], Config]", Loaded)


def _check_file(path: str) -> None:
    """Raise ConfigurationError when the file cannot be read as TOML."""
    try:
        tomllib.loads(Path(path).read_bytes().decode())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: it is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigurationError(f"--config: {path} cannot be read: {error.strerror}") from None


def _not_json(error: SettingsError) -> ConfigurationError:
    found = re.search(r'field "(\w+)"', str(error))
    name = variable((found[1],)) if found else "a CDC_* variable"
    return ConfigurationError(f"the variable {name} is not JSON; single keys are set as {name}__KEY")


# What is wrong, in words.

_WORDS = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "dict_type": "should be a table",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "list_type": "should be a list (as a variable: all of it, as JSON)",
    "model_attributes_type": "should be a table",
    "model_type": "should be a table",
    "string_too_short": "should not be empty",
    "string_type": "should be text in quotes",
    "too_short": "should not be empty",
}
"""For the kinds of problem whose wording by pydantic speaks to programmers."""


def _problem(loc: Sequence[int | str], kind: str, message: str, path: str | None) -> str:
    if kind == "missing":
        return _missing(loc, path)
    if kind == "extra_forbidden":
        return f"{_source(loc, path)}{_key(loc)} is not a known key{_near(loc)}"
    text = _WORDS.get(kind) or message.removeprefix("Value error, ").replace("Input should", "should")
    subject = f"{_key(loc)} " if loc else ""
    return f"{_source(loc, path)}{subject}{text[:1].lower()}{text[1:]}"


def _missing(loc: Sequence[int | str], path: str | None) -> str:
    where = "" if path is None else f"{path}: "
    by_variable = "" if _indexed(loc) else f"; give it there, or as the variable {variable(loc)}"
    if path is None:
        by_variable = f": set the variable {variable(loc)}, or name a file by --config"
    return f"{where}{_key(loc)} is missing{by_variable}"


def _source(loc: Sequence[int | str], path: str | None) -> str:
    """The variable that set a key, else the file, in front of what is said about it."""
    present = {name.upper() for name, value in os.environ.items() if value}
    if any(name.startswith(f"{variable(loc)}__") for name in present if loc):
        return f"the variables {variable(loc)}__…: "
    for length in range(len(loc), 0, -1):
        name = variable(loc[:length])
        if name in present:
            return f"the variable {name}: "
    return "" if path is None else f"{path}: "


def _key(loc: Sequence[int | str]) -> str:
    if not _indexed(loc):
        return ".".join(map(str, loc))
    number = f"[[subscription]] number {int(loc[1]) + 1}"
    return f"{number}: {'.'.join(map(str, loc[2:]))}" if len(loc) > 2 else number


def _indexed(loc: Sequence[int | str]) -> bool:
    return len(loc) > 1 and isinstance(loc[1], int)


def _near(loc: Sequence[int | str]) -> str:
    """The known key that somebody may have meant: alike in the same table, else of that name in another one."""
    table, name = ".".join(str(part) for part in loc[:-1] if isinstance(part, str)), str(loc[-1])
    known = list(keys())
    siblings = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == table]
    alike = difflib.get_close_matches(name.lower(), siblings, 1)
    if alike:
        return f"; did you mean {alike[0]}?"
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    if not elsewhere:
        return f"; known are {', '.join(siblings)}"
    return f"; did you mean {elsewhere[0]}{'' if '.' in elsewhere[0] else ', above the first [table]'}?"


# Names.


def keys() -> Iterator[str]:
    """Every key, with dots: `dsn`, `log.format`, `subscription.table`."""
    for name, model in (("", Config), ("log", LogConfig), ("http", HttpConfig), ("subscription", SubscriptionConfig)):
        yield from (f"{name}.{field}" if name else field for field in model.model_fields)


def variable(loc: Sequence[int | str]) -> str:
    """The variable that sets a key: `CDC_HTTP__PORT` for `("http", "port")`."""
    return _PREFIX + "__".join(str(part).upper() for part in loc)


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that begin with CDC_, set nothing, and look like one that does; with the one they look like.

    The others are left alone: an orchestrator may set `CDC_SERVICE_HOST` and the like.
    """
    known = {variable(key.split(".")) for key in keys()} | _NOT_OURS
    unknown = {name for name in environment if name.upper().startswith(_PREFIX)} - known
    near = {name: difflib.get_close_matches(name.upper(), known, 1, cutoff=0.85) for name in sorted(unknown)}
    return {name: found[0] for name, found in near.items() if found and found[0] != name.upper()}
