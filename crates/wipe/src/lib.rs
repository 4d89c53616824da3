//! An allocator that wipes what is freed: hyper, reqwest, serde and kube leave plain copies of keys behind. Not what is known
//! to be no secret, and is much: the bodies of callers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use zeroizing_alloc::ZeroAlloc;

thread_local! {
    // Without a destructor, so that it can be asked at any time of a thread.
    static SPARED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which wipes all that is freed outside of [`spared`].
#[derive(Debug)]
pub struct Wiping;

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; each call is handed on as it came")]
// SAFETY: each call goes to an allocator whose memory is the system's, with what the caller vouches for.
unsafe impl GlobalAlloc for Wiping {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller vouches.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches: both are the system's memory.
        unsafe {
            if SPARED.get() {
                System.dealloc(memory, layout);
            } else {
                ZeroAlloc(System).dealloc(memory, layout);
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller vouches: both are the system's memory. The second one takes new memory, copies, and wipes.
        unsafe {
            if SPARED.get() {
                // It may move pages in place of copying them.
                System.realloc(memory, layout, size)
            } else {
                ZeroAlloc(System).realloc(memory, layout, size)
            }
        }
    }
}

/// What is freed in here, by this thread, is not wiped. Only for what no secret can be among.
pub fn spared<T>(act: impl FnOnce() -> T) -> T {
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            SPARED.set(self.0);
        }
    }

    let _before = Before(SPARED.replace(true));
    act()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    /// What is left in memory of so many bytes that are freed by `free`. Small ones, which the system keeps.
    #[allow(unsafe_code)]
    fn left(free: impl FnOnce(*mut u8, Layout)) -> usize {
        let layout = Layout::from_size_align(200, 1).unwrap_or_else(|_| unreachable!("it is a layout"));
        // SAFETY: the memory is this function's until it is freed, and it is written before it is read again.
        unsafe {
            let memory = Wiping.alloc(layout);
            memory.write_bytes(0xa5, layout.size());
            free(memory, layout);
            // The system gives out first what was freed last.
            let again = Wiping.alloc(layout);
            assert_eq!(again, memory, "the system gave out other memory");
            let left = (0..layout.size()).filter(|index| again.add(*index).read_volatile() == 0xa5).count();
            Wiping.dealloc(again, layout);
            left
        }
    }

    #[allow(unsafe_code)]
    fn free(memory: *mut u8, layout: Layout) {
        // SAFETY: it was taken from it with this layout.
        unsafe { Wiping.dealloc(memory, layout) }
    }

    #[test]
    fn what_is_freed_is_wiped_and_only_what_is_spared_is_not() {
        assert_eq!(left(free), 0);
        // Of what is spared, the system itself writes over a few bytes.
        assert!(left(|memory, layout| spared(|| free(memory, layout))) > 100);
        assert_eq!(left(free), 0, "from then on it is wiped again");
    }

    #[test]
    fn a_panic_ends_what_is_spared() {
        assert!(std::panic::catch_unwind(|| spared(|| panic!("on purpose"))).is_err());
        assert_eq!(left(free), 0);
    }

    #[test]
    fn what_is_spared_in_it_ends_with_the_outer_one() {
        spared(|| {
            spared(|| ());
            assert!(left(free) > 100);
        });
        assert_eq!(left(free), 0);
    }
}
