"""A check for schemathesis: a refused request has changed no row of the receiver's SQLite file, which RECEIVER_DATABASE names.

Requests come one after the other, so whatever changed between two answers was changed by the second one.
"""

import os
import sqlite3

import schemathesis

_DATABASE = sqlite3.connect(f"file:{os.environ['RECEIVER_DATABASE']}?mode=ro", uri=True, check_same_thread=False)
_seen = {"version": None, "rows": None}


def _rows():
    """All rows of all tables; read again only when another connection has committed."""
    version = _DATABASE.execute("PRAGMA data_version").fetchone()
    if version != _seen["version"]:
        tables = [name for (name,) in _DATABASE.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        rows = {name: _DATABASE.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall() for name in tables}
        _seen.update(version=version, rows=rows)
    return _seen["rows"]


_before = [_rows()]


@schemathesis.check
def nothing_stored_by_a_refused_request(ctx, response, case):
    before, after = _before[0], _rows()
    _before[0] = after
    if response.status_code >= 400:
        changed = [name for name in after if before.get(name) != after[name]]
        assert not changed, f"{response.status_code}, and rows of {', '.join(changed)} have changed"
