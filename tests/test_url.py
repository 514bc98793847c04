"""URLs: what they mean, what is refused, and that no password gets out."""

from __future__ import annotations

import inspect
import traceback
from urllib.parse import quote

import pytest

from millpond import url
from millpond.errors import InvalidSetting
from millpond.threads import Pool
from millpond.url import MYSQL_OPTIONS, URL

SECRET = "p@ss:w/r?d#%"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mysql://u:pw@h:3307/d", ("mysql", None, "u", "pw", "h", 3307, "d")),
        ("mysql+pymysql://h", ("mysql", "pymysql", None, None, "h", None, "")),
        ("MySQL+PyMySQL://u@h/", ("mysql", "pymysql", "u", None, "h", None, "")),
        ("mysql://[::1]:3306/d", ("mysql", None, None, None, "::1", 3306, "d")),
        ("mysql://u:@h/d", ("mysql", None, "u", "", "h", None, "d")),
        ("mariadb://a%40b:x%2Fy%3Az@h/d%20e", ("mariadb", None, "a@b", "x/y:z", "h", None, "d e")),
        ("mysql:///d?unix_socket=/run/my.sock", ("mysql", None, None, None, None, None, "d")),
        ("sqlite:///relative.db", ("sqlite", None, None, None, None, None, "relative.db")),
        ("sqlite:////absolute/x.db", ("sqlite", None, None, None, None, None, "/absolute/x.db")),
        ("sqlite://", ("sqlite", None, None, None, None, None, "")),
    ],
)
def test_urls_are_taken_apart(text: str, parts: tuple[object, ...]) -> None:
    """Each part is found and percent-decoded."""
    parsed = URL.parse(text)
    found = (parsed.scheme, parsed.driver, parsed.user, parsed.password, parsed.host, parsed.port, parsed.database)
    assert parts == found


def test_options_have_types() -> None:
    """Options are read as what they are."""
    parsed = URL.parse(
        "mysql://h/d?charset=utf8mb4&autocommit=true&connect_timeout=2.5&ssl=verify-ca&ssl_ca=%2Fca.pem"
        "&max_allowed_packet=1024&time_zone=+02:00&unix_socket=%2Frun%2Fs&local_infile=off"
    )
    expected = {
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": 2.5,
        "ssl": "verify-ca",
        "ssl_ca": "/ca.pem",
        "max_allowed_packet": 1024,
        "time_zone": "+02:00",
        "unix_socket": "/run/s",
        "local_infile": False,
    }
    assert expected == parsed.typed(MYSQL_OPTIONS)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("autocommit=maybe", "true or false"),
        ("connect_timeout=soon", "seconds, more than 0"),
        ("connect_timeout=0", "seconds, more than 0"),
        ("connect_timeout=nan", "seconds, more than 0"),
        ("max_allowed_packet=-1", "a whole number"),
        ("ssl=on", "verify-identity"),
        ("chraset=utf8mb4", "did you mean charset?"),
        ("max_size=20", "Pool(url, max_size=...)"),
        ("pool_recycle=3600", "Pool(url, max_lifetime=...)"),
        ("db=x", "the database goes into the path"),
        ("password=x", "goes before the host"),
    ],
)
def test_wrong_options_are_refused(option: str, said: str) -> None:
    """A wrong option is named, and so is the remedy."""
    name = option.partition("=")[0]
    with pytest.raises(InvalidSetting) as caught:
        URL.parse(f"mysql://h/d?{option}").typed(MYSQL_OPTIONS)
    assert name == caught.value.name
    assert said in str(caught.value)


def test_pool_settings_are_known_by_the_pools_own_names() -> None:
    """Every setting of the pool is recognised in a URL as one, but for the time-out that drivers share."""
    settings = set(inspect.signature(Pool.__init__).parameters) - {"self", "source", "connect_timeout"}
    assert settings == url.POOL_SETTINGS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h/d",
        "mysql:h",
        "my sql://h",
        "mysql://h:x/d",
        "mysql://h:99999/d",
        "mysql://h:0/d",
        "mysql://[::1/d",
        "mysql://h/d#x",
        "mysql://h/d#",
        "mysql://h/d?charset=",
        "mysql://h/d?charset=a&charset=b",
    ],
)
def test_malformed_urls_are_refused(text: str) -> None:
    """What is no URL of a database is refused, and the shape is shown."""
    with pytest.raises(InvalidSetting) as caught:
        URL.parse(text)
    assert "url" == caught.value.name


@pytest.mark.parametrize(
    "text",
    [
        f"mysql://u:{SECRET}@h/d",
        "mysql://u:hunter2/x@h/d",
        "mysql://u:12/hunter2@h/d",
        "mysql://u:p@ss/hunter2@h/d",
        "mysql://u:p@ss?hunter2@h/d",
        "mysql://u:hunter2",
        "mysql://u:hunter2#x@h/d",
        "mysql://u:hunter2@h:port/d",
        "mysql://u:hunter2@[::1/d",
        "mysql://u:hunter2@h\u2100/d",
        "u:hunter2@h/d",
        "mysql+u:hunter2@h/d",
        "mysql+u:hunter2@h/d?x=://",
        "mysql+hunter2@://h/d",
    ],
)
def test_a_malformed_url_does_not_show_its_password(text: str) -> None:
    """Neither the error nor anything chained to it quotes what may be the password."""
    with pytest.raises(InvalidSetting) as caught:
        URL.parse(text)
    assert "hunter2" not in "".join(traceback.format_exception_only(type(caught.value), caught.value))
    assert "hunter2" not in f"{caught.value!r} {caught.value.args} {caught.value.__dict__}"
    assert caught.value.__cause__ is None
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_parsed_url_does_not_show_its_password() -> None:
    """Repr and text of a URL have three stars for every secret."""
    secret = quote(SECRET, safe="")
    parsed = URL.parse(f"mysql+pymysql://u:{secret}@[::1]:3306/d?ssl_key_password=hunter2&charset=utf8mb4")
    assert SECRET == parsed.password
    assert "mysql+pymysql://u:***@[::1]:3306/d?ssl_key_password=***&charset=utf8mb4" == str(parsed)
    assert repr(parsed) == str(parsed)
    assert "hunter2" not in f"{parsed!r}{parsed}"
