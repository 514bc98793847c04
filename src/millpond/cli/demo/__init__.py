"""``millpond demo``: the pool's main job, on real data, with every figure measured in that run.

``data.py`` has the data, ``stores.py`` the databases, ``crowd.py`` the threads, ``acts.py`` what is shown and checked,
``screen.py`` how it looks, ``play.py`` the order of events. Nothing here knows a figure beforehand, and each act says
what would be wrong: a wrong row, an unfair share, a lost write.
"""
