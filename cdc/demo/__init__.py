"""The demonstration behind `cdc demo`: real changes of a real PostgreSQL, watched and then checked.

Uses public names of cdc only, so it is also an example to read: begin at `trial`. Touches the private PostgreSQL
that it starts and the writer process; both are gone when it ends.
"""
