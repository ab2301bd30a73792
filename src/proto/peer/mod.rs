//! One connection's share of the protocol: states, requests in flight both ways, what to say next.
