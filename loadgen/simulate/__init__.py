"""The simulator: the router's own dispatcher over simulated engines, in virtual time.

Nothing of the router is written twice here: :class:`router.core.dispatcher.Dispatcher` and the
policies are the very objects that ``pointsman serve`` runs, and the engines are those of
``pointsman replica``. What is added is what lies between them: a network, polls, and time.

From the ground up: ``agenda`` is time, ``workload`` what is asked, ``scenario`` the fleet and what
befalls it, ``station`` one replica, ``watch`` the polls of it, ``simulation`` drives the
dispatcher, ``results`` turns outcomes into figures, ``capacity`` searches the highest rate,
``study`` runs many simulations at once.
"""
