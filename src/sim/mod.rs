//! A second shell: the production machines in virtual time, over a simulated network and disk.
