"""Load tests for LLM services: open-loop traffic in locust, and figures that can be trusted.

``locust -f loadtests/chat.py`` and its neighbours are ordinary locust files. Everything that reads their results
(:mod:`loadtests.sample`, the statistics, the reports) is free of locust and gevent.
"""
