//! From the tree in memory to source text.

use std::fmt::Write;

use crate::Node;

/// The tree as device tree source, spelled as `dtc -I dtb -O dts` spells it: a value is printed as strings if it looks
/// like strings (printable, terminated, and with no more NULs than characters), else as 32-bit cells if its length allows,
/// else as bytes.
pub fn to_dts(root: &Node) -> String {
    let mut text = String::from("/dts-v1/;\n\n");
    print_node(&mut text, root, 0);
    text
}

fn print_node(text: &mut String, node: &Node, depth: usize) {
    let indent = "\t".repeat(depth);
    let name = if node.name.is_empty() { "/" } else { &node.name };
    push(text, format_args!("{indent}{name} {{\n"));
    for property in &node.properties {
        push(text, format_args!("{indent}\t{}", property.name));
        if !property.value.is_empty() {
            text.push_str(" = ");
            print_value(text, &property.value);
        }
        text.push_str(";\n");
    }
    for child in &node.children {
        text.push('\n');
        print_node(text, child, depth + 1);
    }
    push(text, format_args!("{indent}}};\n"));
}

fn print_value(text: &mut String, value: &[u8]) {
    let (cells, odd_bytes) = value.as_chunks::<4>();
    if let Some(strings) = as_text(value) {
        for (index, string) in strings.split(|&byte| byte == 0).enumerate() {
            text.push_str(if index == 0 { "\"" } else { ", \"" });
            string.iter().for_each(|&byte| print_character(text, byte));
            text.push('"');
        }
    } else if odd_bytes.is_empty() {
        text.push('<');
        for (index, &cell) in cells.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            push(text, format_args!("{space}{:#04x}", u32::from_be_bytes(cell)));
        }
        text.push('>');
    } else {
        text.push('[');
        for (index, byte) in value.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            push(text, format_args!("{space}{byte:02x}"));
        }
        text.push(']');
    }
}

/// The value without its last NUL, if it looks like one or more strings.
fn as_text(value: &[u8]) -> Option<&[u8]> {
    let strings = value.strip_suffix(&[0])?;
    let nuls = value.iter().filter(|&&byte| byte == 0).count();
    let printable = |&byte: &u8| matches!(byte, 0 | 7..=13 | b' '..=b'~');
    (nuls <= value.len() - nuls && value.iter().all(printable)).then_some(strings)
}

fn print_character(text: &mut String, byte: u8) {
    match byte {
        7 => text.push_str("\\a"),
        8 => text.push_str("\\b"),
        b'\t' => text.push_str("\\t"),
        b'\n' => text.push_str("\\n"),
        11 => text.push_str("\\v"),
        12 => text.push_str("\\f"),
        b'\r' => text.push_str("\\r"),
        b'"' => text.push_str("\\\""),
        b'\\' => text.push_str("\\\\"),
        _ => text.push(char::from(byte)),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: &[u8]) -> String {
        let mut text = String::new();
        print_value(&mut text, value);
        text
    }

    #[test]
    fn values_are_printed_by_their_looks() {
        assert_eq!(printed(&[0, 0, 0, 5]), "<0x05>");
        assert_eq!(printed(&[0, 0, 0x12, 0x34, 0, 0, 0, 0]), "<0x1234 0x00>");
        assert_eq!(printed(b"okay\0"), "\"okay\"");
        assert_eq!(printed(b"sifive,test1\0syscon\0"), "\"sifive,test1\", \"syscon\"");
        assert_eq!(printed(b"a\"\\\n\0"), r#""a\"\\\n""#);
        assert_eq!(printed(&[1, 2, 3]), "[01 02 03]");
    }

    // dtc takes 3686400 = 00 38 40 00 for two strings, and so do the trees that guests are compared with.
    #[test]
    fn numbers_that_look_like_strings_are_printed_as_dtc_does() {
        assert_eq!(printed(&3_686_400u32.to_be_bytes()), "\"\", \"8@\"");
    }

    #[test]
    fn nodes_are_nested_with_tabs() {
        let mut root = Node::new("");
        root.set_u32("#size-cells", 2);
        root.child("soc")
            .set_empty("ranges")
            .child("rtc@101000")
            .set_string("compatible", "google,goldfish-rtc");
        let expected = "/dts-v1/;\n\n/ {\n\t#size-cells = <0x02>;\n\n\tsoc {\n\t\tranges;\n\n\t\trtc@101000 {\n\
                        \t\t\tcompatible = \"google,goldfish-rtc\";\n\t\t};\n\t};\n};\n";
        assert_eq!(to_dts(&root), expected);
    }
}
