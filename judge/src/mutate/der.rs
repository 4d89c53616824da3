//! Changes of the encoding, anywhere in what is signed.

use fastrand::Rng;

use crate::der::{Content, Length, Node};
use crate::shapes::pick;

const FIELDS: [&str; 8] = ["version", "serial", "algorithm", "issuer", "validity", "subject", "key", "extensions"];

/// String types, and some others.
const TAGS: [u8; 14] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x0a, 0x0c, 0x12, 0x13, 0x14, 0x16, 0x1a, 0x1c, 0x1e];

/// Changes one node of it, by a seed. What was done; `None`: it could not be taken apart.
pub(crate) fn edit(der: &[u8], seed: u64) -> Option<(String, Vec<u8>)> {
    let mut rng = Rng::with_seed(seed);
    let mut nodes = Node::parse_all(der)?;
    let field = if rng.u8(0..10) < 7 { 7 } else { rng.usize(0..FIELDS.len()) };
    let top = nodes.first_mut()?.children_mut()?;
    let mut node = top.get_mut(field)?;
    let mut place = FIELDS[field].to_owned();
    let mut depth = 0;
    // Down to somewhere, named by the extension that is passed.
    while !node.children().is_empty() && (depth < 2 || rng.u8(0..5) > 0) {
        if let Some(extension) = extension(node) {
            place = format!("extension {extension}");
        }
        let index = rng.usize(0..node.children().len());
        node = &mut node.children_mut()?[index];
        depth += 1;
    }
    let what = change(&mut rng, node)?;
    Some((format!("{what} in {place}"), nodes.iter().flat_map(Node::encode).collect()))
}

/// The last arc of an extension's identifier.
fn extension(node: &Node) -> Option<u8> {
    match node.children().first()? {
        Node { tag: 0x06, content: Content::Bytes(oid), .. } if oid.starts_with(&[0x55, 0x1d]) => oid.last().copied(),
        _ => None,
    }
}

fn change(rng: &mut Rng, node: &mut Node) -> Option<&'static str> {
    let constructed = !node.children().is_empty();
    Some(match rng.u8(0..12) {
        0 => {
            node.length = Length::Long;
            "a length that is not minimal"
        }
        1 if constructed => {
            node.length = Length::Indefinite;
            "an indefinite length"
        }
        2 if constructed => {
            let children = node.children_mut()?;
            let index = rng.usize(0..children.len());
            children.remove(index);
            "something left out"
        }
        3 if constructed => {
            let children = node.children_mut()?;
            let index = rng.usize(0..children.len());
            let twice = children[index].clone();
            children.insert(index, twice);
            "something twice"
        }
        4 if constructed => {
            node.children_mut()?.reverse();
            "another order"
        }
        5 => {
            node.tag = *pick(rng, &TAGS);
            "another tag"
        }
        6 => {
            node.tag ^= 0x20;
            "the other form of a tag"
        }
        7 if constructed => {
            node.children_mut()?.push(Node { tag: 0x05, length: Length::Minimal, content: Content::Bytes(Vec::new()) });
            "a null at the end"
        }
        8 if !constructed => {
            node.bytes_mut()?.insert(0, 0);
            "a zero in front"
        }
        9 if !constructed => {
            node.bytes_mut()?.push(rng.u8(..));
            "a byte at the end"
        }
        10 if !constructed => {
            node.bytes_mut()?.pop();
            "a byte short"
        }
        _ => {
            let bytes = node.bytes_mut()?;
            let index = rng.usize(0..bytes.len().max(1));
            *bytes.get_mut(index)? ^= 1 << rng.u8(0..8);
            "another bit"
        }
    })
}
