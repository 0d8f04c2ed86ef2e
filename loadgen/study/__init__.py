"""The study: how much load a fleet bears under each policy, on many workloads and fleets.

``python -m loadgen.study`` (``make study``) simulates all of it and writes the tables and pictures
that the README shows. What has been simulated is kept in the output folder, so that a study that
was interrupted goes on where it stopped.

From the ground up: ``cases`` is what is looked at, ``store`` what is known already, ``steps`` the
simulations in their order, ``figures`` reads their results, ``tables`` and ``pictures`` show them.
"""
