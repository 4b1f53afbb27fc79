"""What serving a model oneself costs: ``python -m serving.own_cost RUN --hour-price 0.40 --against MODEL``.

- :mod:`serving.own_cost.fit`: how much of the machine a prompt token and an output token take, with intervals;
- :mod:`serving.own_cost.bill`: the run's bill, idle time on its own line, and the break-even against an API;
- :mod:`serving.own_cost.show`: tables and the break-even curve.
"""
