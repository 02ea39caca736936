"""``hostlane explain SERVICE``: the layers that a message passes, directly and through Hostlane.

walk       the layers from a network namespace to an address: interfaces, bridges, rules
measure    round trips of the parts that can be measured from here
gather     whatever is needed of these two, and of the proxy
account    all of it and what the proxy tells, put together (sans-IO)
show       the picture
"""
