//! Networks: `-netdev`, `-nic` and `-net`.

use super::*;

/// Keys of QEMU's user network whose values, if they are these, are what is so here.
const NET_KEYS: &[(&str, &[&str], &str)] = &[
    ("net", &["10.0.2.0/24", "10.0.2.0"], "10.0.2.0/24: the guest's network has these addresses"),
    ("host", &["10.0.2.2"], "10.0.2.2: so the guest sees the host"),
    ("dns", &["10.0.2.3"], "10.0.2.3: so the guest sees the name server"),
    ("dhcpstart", &["10.0.2.15"], "10.0.2.15: so the guest is called"),
    ("ipv4", &["on"], "ipv4=on"),
];

/// The rest of `-netdev user,…` without its id, as `--net` has it.
fn user_network(mut list: List) -> Result<String, Refusal> {
    NET_KEYS.iter().try_for_each(|(key, values, instead)| list.expect(key, values, instead))?;
    let mut text = String::from("user");
    if let Some(on) = list.switch("restrict")? {
        text += if on { ",restrict=on" } else { ",restrict=off" };
    }
    if let Some(on) = list.switch("ipv6")? {
        text += if on { ",ipv6=on" } else { ",ipv6=off" };
    }
    list.take_all("hostfwd").iter().for_each(|forward| text += &format!(",hostfwd={forward}"));
    list.finish("hostfwd, restrict and ipv6")?;
    let checked: Result<NetOptions, _> = text.parse();
    checked.map_err(|error| Refusal::new("-netdev user", error.to_string()))?;
    Ok(text)
}

/// Checks the kind of a network, and gives it as `--net` has it.
fn network(option: &str, list: List, kind: &str) -> Result<String, Refusal> {
    match kind {
        "user" => user_network(list),
        _ => Err(Refusal::new(
            format!("{option} {kind} is not possible here"),
            "use user: it needs no rights, and hostfwd=tcp::2222-:22 lets connections in",
        )),
    }
}

pub(in super::super) fn netdev(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-netdev", value, Some("type"));
    let kind = list.take("type").unwrap_or_default();
    let Some(id) = list.take("id") else {
        return Err(Refusal::new(
            "-netdev without an id",
            "want -netdev user,id=ID, and -device virtio-net-device,netdev=ID",
        ));
    };
    let network = network("-netdev", list, &kind)?;
    guest.devices.netdevs.insert(id, network);
    Ok(())
}

pub(in super::super) fn nic(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-nic", value, Some("type"));
    let kind = list.take("type").unwrap_or_default();
    if kind == "none" {
        return list.finish("nothing else");
    }
    nic_model(&mut list)?;
    list.skip(&["id"]);
    let address = list.take("mac");
    let mut network = network("-nic", list, &kind)?;
    if let Some(address) = address {
        network += &format!(",mac={address}");
    }
    guest.devices.networks.push(network);
    Ok(())
}

fn nic_model(list: &mut List) -> Done {
    const MODELS: &[&str] = &["virtio", "virtio-net-pci", "virtio-net-device"];
    list.expect("model", MODELS, "model=virtio-net-pci")
}

pub(in super::super) fn net(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-net", value, Some("type"));
    match list.take("type").unwrap_or_default().as_str() {
        "none" => list.finish("nothing else"),
        // The device's half: it comes with the network's half.
        "nic" => {
            nic_model(&mut list)?;
            list.skip(&["netdev", "name"]);
            list.finish("model")
        }
        kind => {
            list.skip(&["name"]);
            let network = network("-net", list, kind)?;
            guest.devices.networks.push(network);
            Ok(())
        }
    }
}
