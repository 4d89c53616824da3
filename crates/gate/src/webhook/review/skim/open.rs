//! Where in a text a value is that is passed over.

use super::DEPTH_MAX;

/// The objects and lists around a place: of each, whether it is an object.
#[derive(Default)]
pub(super) struct Open {
    depth: usize,
    /// The innermost ones, up to 64.
    near: u64,
    far: Vec<u64>,
}

impl Open {
    /// One more inside of them, unless that is too deep.
    pub(super) fn push(&mut self, is_object: bool) -> bool {
        if self.depth == DEPTH_MAX {
            return false;
        }
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.far.push(self.near);
        }
        self.near = self.near << 1 | u64::from(is_object);
        self.depth += 1;
        true
    }

    /// The innermost one.
    pub(super) fn last(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.near & 1 == 1)
    }

    /// Out of the innermost one.
    pub(super) fn pop(&mut self) {
        self.depth -= 1;
        self.near >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(near) = self.far.pop()
        {
            self.near = near;
        }
    }
}
