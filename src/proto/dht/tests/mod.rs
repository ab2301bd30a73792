//! The whole machine among its like: nodes in virtual time over a network that keeps its promises or not.
