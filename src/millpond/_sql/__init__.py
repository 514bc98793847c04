"""What millpond reads in a statement's text: tokens, never meaning.

Two modules, standard library only, without I/O and without state that a caller could see: :mod:`tokens` cuts a
statement into pieces, :mod:`cleanliness` proves that a statement leaves nothing behind in its session.
"""
