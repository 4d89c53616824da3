//! Writes DER, right or wrong, and takes it apart to be changed.

/// One value with its tag and length.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag], length(content.len()).as_slice(), content].concat()
}

pub(crate) fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u32> = dotted.split('.').map_while(|arc| arc.parse().ok()).collect();
    let mut content = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for arc in &arcs[2..] {
        let groups = (0..5).rev().map(|group| (arc >> (7 * group)) & 0x7f).skip_while(|bits| *bits == 0);
        let mut bytes: Vec<u8> = groups.map(|bits| bits as u8 | 0x80).collect();
        if bytes.is_empty() {
            bytes.push(0x80);
        }
        if let Some(last) = bytes.last_mut() {
            *last &= 0x7f;
        }
        content.extend(bytes);
    }
    tlv(0x06, &content)
}

pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

pub(crate) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

fn length(bytes: usize) -> Vec<u8> {
    let all = bytes.to_be_bytes();
    let used: Vec<u8> = all.into_iter().skip_while(|byte| *byte == 0).collect();
    if bytes < 0x80 { vec![bytes as u8] } else { [vec![0x80 | used.len() as u8], used].concat() }
}

/// How a node's length is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Minimal,
    /// With a zero in front.
    Long,
    /// BER's, to an end-of-contents.
    Indefinite,
}

/// A value that may be changed.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) tag: u8,
    pub(crate) length: Length,
    pub(crate) content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    Nodes(Vec<Node>),
}

impl Node {
    /// All of it, also what octet strings have in them. `None`: not DER.
    pub(crate) fn parse_all(mut der: &[u8]) -> Option<Vec<Self>> {
        let mut nodes = Vec::new();
        while !der.is_empty() {
            let (node, rest) = Self::parse(der)?;
            nodes.push(node);
            der = rest;
        }
        Some(nodes)
    }

    fn parse(der: &[u8]) -> Option<(Self, &[u8])> {
        let (&tag, rest) = der.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut size = usize::from(first);
        if first & 0x80 != 0 {
            let octets = usize::from(first & 0x7f);
            if octets == 0 || octets > 4 || tag & 0x1f == 0x1f {
                return None;
            }
            let (head, tail) = rest.split_at_checked(octets)?;
            size = head.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = tail;
        }
        let (content, rest) = rest.split_at_checked(size)?;
        let nested = tag & 0x20 != 0 || tag == 0x04;
        let children = if nested && size > 0 { Self::parse_all(content) } else { None };
        let content = children.map_or_else(|| Content::Bytes(content.to_vec()), Content::Nodes);
        Some((Self { tag, length: Length::Minimal, content }, rest))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let content = match &self.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Nodes(nodes) => nodes.iter().flat_map(Self::encode).collect(),
        };
        match self.length {
            Length::Minimal => tlv(self.tag, &content),
            Length::Long => {
                let minimal = length(content.len());
                let long = match minimal[0] {
                    short @ 0..0x80 => vec![0x81, short],
                    many => [&[many + 1, 0], &minimal[1..]].concat(),
                };
                [vec![self.tag], long, content].concat()
            }
            Length::Indefinite => [vec![self.tag, 0x80], content, vec![0, 0]].concat(),
        }
    }

    pub(crate) fn children(&self) -> &[Self] {
        if let Content::Nodes(nodes) = &self.content { nodes } else { &[] }
    }

    pub(crate) fn children_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Content::Nodes(nodes) = &mut self.content { Some(nodes) } else { None }
    }

    pub(crate) fn bytes_mut(&mut self) -> Option<&mut Vec<u8>> {
        if let Content::Bytes(bytes) = &mut self.content { Some(bytes) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_taken_apart_is_put_together_as_it_was() {
        let inner = seq(&[oid("2.5.29.19"), TRUE.to_vec(), tlv(0x04, &seq(&[TRUE.to_vec()]))]);
        let der = seq(&[tlv(0x02, &[1]), inner, tlv(0x0c, &[b'x'; 300])]);
        let nodes = Node::parse_all(&der).unwrap();
        assert_eq!(nodes[0].encode(), der);
        assert_eq!(nodes[0].children().len(), 3);
    }

    #[test]
    fn identifiers_are_as_x690_has_them() {
        assert_eq!(oid("1.2.840.113549.1.1.11"), [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]);
        assert_eq!(oid("2.5.29.0"), [6, 3, 0x55, 0x1d, 0]);
    }
}
