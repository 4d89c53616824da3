//! Which of two counts, where an object is both watched and read. A read asks for no version, so that it tells what is
//! there at the moment; a watch tells of each change in its order, if late, and may have lost one.

use std::cmp::Ordering;

/// What was told last, by the watch or by a read that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The object's resourceVersion; empty where there is nothing.
    pub version: String,
    /// A resourceVersion by which it was so: of what is gone, that of its end.
    pub by: String,
}

impl Told {
    /// There is an object of this version.
    pub fn present(version: String) -> Self {
        Self { by: version.clone(), version }
    }

    /// There is none, by this resourceVersion.
    pub fn absent(by: String) -> Self {
        Self { version: String::new(), by }
    }
}

/// What a read is worth beside what was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It is what was told.
    Same,
    /// It is the truth, and the watch is behind or has lost a change: it has to begin anew.
    Newer,
    /// Something else was told while it was under way, which may be newer: read again.
    Overtaken,
    /// It is older than what had been told before it began. Of a sound API server no read is, so that it is not known
    /// what is there.
    Stale,
}

/// What was told of one object, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Counts changes, to notice one that came in between.
    generation: u64,
    told: Option<Told>,
}

impl Order {
    /// The same where no read is under way: which generation it is says nothing then.
    #[cfg(any(test, feature = "samples"))]
    pub fn at_rest(&self) -> Self {
        Self { generation: 0, told: self.told.clone() }
    }

    /// By which a read that begins now is weighed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The version that was told last; empty where there is nothing. `None`: nothing was told yet.
    pub fn version(&self) -> Option<&str> {
        self.told.as_ref().map(|told| told.version.as_str())
    }

    /// Takes note of what the watch tells. Returns whether it is a change.
    pub fn tell(&mut self, told: Told) -> bool {
        let is_change = self.version() != Some(&told.version);
        self.generation += u64::from(is_change);
        self.told = Some(told);
        is_change
    }

    /// Weighs a read of this version, empty for nothing, that began in this generation, and takes note of it if it counts.
    pub fn read(&mut self, began: u64, version: &str) -> Worth {
        let worth = self.weigh(began, version);
        if matches!(worth, Worth::Same | Worth::Newer) && self.version() != Some(version) {
            // What is gone was not told by any version of its own.
            let by = self.told.take().map(|told| told.by).filter(|_| version.is_empty());
            self.tell(Told { version: version.to_owned(), by: by.unwrap_or_else(|| version.to_owned()) });
        }
        worth
    }

    fn weigh(&self, began: u64, version: &str) -> Worth {
        match &self.told {
            Some(told) if told.version == version => Worth::Same,
            _ if self.generation != began => Worth::Overtaken,
            None => Worth::Same,
            Some(told) if compare(version, &told.by) == Some(Ordering::Less) => Worth::Stale,
            Some(_) => Worth::Newer,
        }
    }
}

/// Compares two resourceVersions of one resource as Kubernetes documents it since 1.35: decimal numbers of any length.
/// `None`: one of them is none.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    let is_number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() && !text.starts_with('0');
    (is_number(one) && is_number(other)).then(|| one.len().cmp(&other.len()).then_with(|| one.cmp(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_the_truth_unless_it_is_older_than_what_was_told_before_it() {
        let present = |version: &str| Told::present(version.to_owned());
        let gone = Told::absent("12".to_owned());
        for (read, told, expected) in [
            ("9", None, Worth::Same),
            ("", None, Worth::Same),
            ("9", Some(present("9")), Worth::Same),
            ("", Some(gone.clone()), Worth::Same),
            // The watch is behind, or has lost a change.
            ("10", Some(present("9")), Worth::Newer),
            ("", Some(present("9")), Worth::Newer),
            ("13", Some(gone.clone()), Worth::Newer),
            // What was there before the change that was told.
            ("9", Some(present("10")), Worth::Stale),
            ("11", Some(gone), Worth::Stale),
            // What cannot be compared is told by the read.
            ("a9", Some(present("b10")), Worth::Newer),
            ("0", Some(present("10")), Worth::Newer),
        ] {
            let mut order = Order { generation: 1, told: told.clone() };
            assert_eq!(order.read(1, read), expected, "{read:?} {told:?}");
            let counts = matches!(expected, Worth::Same | Worth::Newer);
            assert_eq!(order.version() == Some(read), counts, "{read:?} {told:?}");
            let mut order = Order { generation: 2, told: told.clone() };
            let meanwhile = if expected == Worth::Same && told.is_some() { Worth::Same } else { Worth::Overtaken };
            assert_eq!(order.read(1, read), meanwhile, "{read:?} {told:?} meanwhile");
        }
    }

    #[test]
    fn what_was_there_before_a_deletion_that_was_read_is_stale_too() {
        let mut order = Order::default();
        order.tell(Told::present("9".to_owned()));
        assert_eq!(order.read(order.generation(), ""), Worth::Newer);
        assert_eq!(order.read(order.generation(), "8"), Worth::Stale);
        assert_eq!(order.read(order.generation(), "10"), Worth::Newer);
    }

    #[test]
    fn a_list_is_believed_whatever_was_told_before() {
        let mut order = Order::default();
        assert!(order.tell(Told::present("9".to_owned())));
        assert!(!order.tell(Told::present("9".to_owned())));
        // etcd was restored from a backup.
        assert!(order.tell(Told::present("5".to_owned())));
        assert_eq!(order.read(order.generation(), "5"), Worth::Same);
    }

    #[test]
    fn versions_are_numbers_of_any_length() {
        assert_eq!(compare("99999999999999999999", "100000000000000000000"), Some(Ordering::Less));
        assert_eq!(compare("8", "8"), Some(Ordering::Equal));
        assert_eq!(compare("20", "13"), Some(Ordering::Greater));
        for (one, other) in [("", "1"), ("1", "01"), ("-1", "1"), ("1.0", "1")] {
            assert_eq!(compare(one, other), None, "{one:?} {other:?}");
        }
    }
}
