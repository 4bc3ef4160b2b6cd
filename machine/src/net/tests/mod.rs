//! The network as a guest meets it: every test is a guest that speaks the protocols by hand, with real servers and clients on
//! the host's loopback.

mod fuzz;
mod guest;
mod services;
mod tcp;
mod udp;
