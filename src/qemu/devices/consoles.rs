//! Consoles: `-chardev` and `-serial`.

use super::*;

pub(in super::super) fn chardev(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-chardev", value, Some("backend"));
    let backend = list.take("backend").unwrap_or_default();
    let Some(id) = list.take("id") else {
        return Err(Refusal::new("-chardev without an id", "want -chardev stdio,id=ID"));
    };
    let chardev = match backend.as_str() {
        "stdio" => {
            list.skip(&["mux", "signal"]);
            Chardev::Stdio
        }
        "null" => Chardev::Null,
        "file" => {
            list.expect("append", &["off"], "append=off")?;
            let path = list
                .take("path")
                .ok_or_else(|| Refusal::new("-chardev file without a path", "want path=FILE"))?;
            Chardev::File(path)
        }
        _ => return Err(no_console(&format!("-chardev {backend}"))),
    };
    list.finish("id, and path of a file")?;
    guest.devices.chardevs.insert(id, chardev);
    Ok(())
}

fn no_console(what: &str) -> Refusal {
    Refusal::new(
        format!("{what} is not possible here"),
        "want stdio, null or file; for a socket, start hartvm under `socat`, for a terminal of its own under `tmux`",
    )
}

pub(in super::super) fn serial(guest: &mut Guest, value: &str) -> Done {
    let devices = &mut guest.devices;
    let end = match value {
        "stdio" | "mon:stdio" | "chardev:stdio" => Chardev::Stdio,
        "none" | "null" => Chardev::Null,
        _ => match (value.strip_prefix("file:"), value.strip_prefix("chardev:")) {
            (Some(path), _) if !path.is_empty() => Chardev::File(path.into()),
            (_, Some(id)) => devices.chardevs.get(id).cloned().ok_or_else(|| {
                Refusal::new(format!("-serial {value}: there is no such chardev"), "give its -chardev first")
            })?,
            _ => return Err(no_console(&format!("-serial {value}"))),
        },
    };
    match &devices.serial {
        // The board has one port.
        Some(_) if end == Chardev::Null => {}
        Some(_) => {
            return Err(Refusal::new(
                "-serial is there twice",
                "leave the second one out: the board has one serial port",
            ));
        }
        None => devices.serial = Some(end),
    }
    Ok(())
}
