//! Which datagrams the host was told did not arrive (IP_RECVERR of ip(7), IPV6_RECVERR of ipv6(7)).

#![allow(unsafe_code, reason = "a socket option that rustix does not have")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags};

/// Has a UDP socket keep what comes back for its datagrams.
pub(super) fn keep(socket: impl AsFd, v6: bool) -> Result<(), Errno> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the address of an integer that lives until it returns.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(&on).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(last_error())) }
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The next datagram that did not arrive: where it was to go, and how many of its bytes are in `scratch`.
pub(super) fn next(socket: impl AsFd, scratch: &mut [u8]) -> Option<(SocketAddr, usize)> {
    let room = scratch.len();
    let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
    let (_, len, to) = net::recvfrom(socket, scratch, flags).ok()?;
    Some((SocketAddr::try_from(to?).ok()?, len.min(room)))
}
