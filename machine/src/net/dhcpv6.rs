//! DHCPv6 without addresses (RFC 8415 section 6.1): guests make their own, and ask here for the name server.

use super::config::DNS_V6;
use super::link::HOST_MAC;
use super::wire::be16;

pub(super) const SERVER_PORT: u16 = 547;

const INFORMATION_REQUEST: u8 = 11;
const REPLY: u8 = 7;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
/// RFC 3646.
const DNS_SERVERS: u16 = 23;

/// A DUID of a link-layer address (section 11.4) on Ethernet.
const DUID_LL: [u8; 4] = [0, 3, 0, 1];

/// The answer to a message, if it has one.
pub(super) fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let (header, options) = request.split_first_chunk::<4>()?;
    if header[0] != INFORMATION_REQUEST {
        return None;
    }
    let mut reply = vec![REPLY, header[1], header[2], header[3]];
    let mut put = |number: u16, value: &[&[u8]]| {
        let len: usize = value.iter().map(|part| part.len()).sum();
        reply.extend_from_slice(&number.to_be_bytes());
        reply.extend_from_slice(&(len as u16).to_be_bytes());
        value.iter().for_each(|part| reply.extend_from_slice(part));
    };
    let own: &[&[u8]] = &[&DUID_LL, &HOST_MAC];
    let mut rest = options;
    while rest.len() >= 4 {
        let (number, len) = (be16(rest, 0), usize::from(be16(rest, 2)));
        let value = rest.get(4..4 + len)?;
        match number {
            // Section 11: 2 bytes of type and 128 of the rest at most.
            CLIENT_ID if len <= 130 => put(CLIENT_ID, &[value]),
            // For another server.
            SERVER_ID if value != own.concat() => return None,
            _ => {}
        }
        rest = &rest[4 + len..];
    }
    put(SERVER_ID, own);
    put(DNS_SERVERS, &[&DNS_V6.octets()]);
    // Any number of client identifiers would fit into one request, but not into an honest one.
    (reply.len() <= 512).then_some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_information_is_told_the_name_server() {
        let request = [INFORMATION_REQUEST, 1, 2, 3, 0, 1, 0, 2, 0xaa, 0xbb, 0, 8, 0, 2, 0, 0];
        let reply = answer(&request).unwrap();
        assert_eq!(reply[..10], [REPLY, 1, 2, 3, 0, 1, 0, 2, 0xaa, 0xbb]);
        assert!(reply.ends_with(&DNS_V6.octets()));
    }

    #[test]
    fn other_messages_and_other_servers_are_left_alone() {
        assert_eq!(answer(&[1, 1, 2, 3]), None);
        assert_eq!(answer(&[]), None);
        assert_eq!(answer(&[INFORMATION_REQUEST, 1, 2, 3, 0, 2, 0, 1, 9]), None);
        assert_eq!(answer(&[INFORMATION_REQUEST, 1, 2, 3, 0, 1, 0, 200, 9]), None);
        let many = [&[INFORMATION_REQUEST, 1, 2, 3][..], &[0, 1, 0, 0].repeat(1000)].concat();
        assert_eq!(answer(&many), None);
    }
}
