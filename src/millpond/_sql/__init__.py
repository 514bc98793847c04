"""What millpond reads in a statement's text: tokens, never meaning.

Standard library only, without I/O and without state that a caller could see: :mod:`tokens` cuts a statement into
pieces, :mod:`cleanliness` proves that a statement leaves nothing behind in its session, :mod:`templates` proves that of
a text once for all of its values, and :mod:`params` puts values beside a text.
"""
