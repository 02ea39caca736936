"""The process: ``agent`` builds every part once and owns start and stop; ``reload`` reads the configuration again,
``drain`` ends the proxy without cutting streams at once, and with ``handover`` the next process takes its place.
"""
