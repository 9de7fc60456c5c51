//! A file that shrinks or fails underneath a memory map: an error, not a crash.
//!
//! Losses are read where they lie, and mostly they lie in memory maps. When somebody truncates such a file, or its disk
//! fails, the kernel answers the next touch of a missing page with SIGBUS, which kills the process. While a [`Guard`]
//! lives, a page that goes missing *inside its arrays* becomes a page of zeros, the call goes on over them, and the
//! guard says that it [`failed`](Guard::failed): whatever came out is thrown away.
//!
//! # What can be promised, and what not
//!
//! It holds for reads by calls that [`door::run`](crate::door::run) made, of the arrays it was told of (the first 4,096
//! at a time), on Linux. It doesn't hold for a read by NumPy or anybody else outside of such a call, which crashes as
//! ever; for maps of huge pages (hugetlbfs), where one small page can't be replaced; nor for what a file says when it is
//! overwritten in place, which no signal tells. When the guard goes, the pages it replaced become the map of an
//! empty file: whoever touches them gets SIGBUS again, from NumPy a crash, from us the same error. So zeros are never
//! taken for losses; the array is lost and has to be mapped anew.
//!
//! Strictly, a `&[f32]` whose memory changes is outside Rust's rules, as is any map of a file that others may write.
//! In practice loads see old values or zeros, and what the core makes of them is bounded by its own checks.
//!
//! # How
//!
//! One static table of spans; registering takes a mutex (always with the interpreter lock held, so `os.fork` never finds
//! it locked), the signal handler takes none. A slot's version is odd while it changes; the handler passes over
//! those, because the slot of a call that is faulting right now can't be changing. Flags carry the version, so that a
//! late one can't meet the slot's next owner. The handler only loads, stores and calls `mmap`.
//!
//! The handler is there only while a call runs, on top of whoever was there before. What isn't ours goes to that one:
//! see [`forward`]. In the child of a fork the parent's calls don't go on, and its guards are void.
//!
//! Cost: some 2 microseconds per call and nothing per byte read.

use libc::{c_int, c_void, siginfo_t};
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// Arrays guarded at a time, over all calls; those beyond are read without a guard.
const MOST_SPANS: usize = 4096;

/// One guarded array. All zeros when free.
struct Slot {
    /// Odd while the slot changes; otherwise names the owner.
    version: AtomicU64,
    start: AtomicUsize,
    /// Where the array ends; 0 when the slot is free.
    end: AtomicUsize,
    /// The version that lost a page.
    failed: AtomicU64,
    /// From the first replaced page to the end of the last one.
    lost_start: AtomicUsize,
    lost_end: AtomicUsize,
}

static SLOTS: [Slot; MOST_SPANS] = [const { Slot::free() }; MOST_SPANS];
/// Slots beyond were never used.
static N_USED: AtomicUsize = AtomicUsize::new(0);
/// How many guards there are. Whoever changes slots or the signal's disposition holds it.
static N_GUARDS: Mutex<usize> = Mutex::new(0);
/// The process whose guards these are.
static OWNER: AtomicI32 = AtomicI32::new(0);
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Who handled the signal before us; never freed, a handler may be reading it.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());
/// The thread whose signal was passed on to [`PREVIOUS`] and hasn't come back yet.
static FORWARDED: AtomicI32 = AtomicI32::new(0);

/// Watches over arrays until it is dropped. Made and dropped with the interpreter lock held.
pub struct Guard {
    /// For every array its slot and version; None where there was none left, or nothing to guard.
    held: Vec<Option<(&'static Slot, u64)>>,
    owner: i32,
}

impl Guard {
    /// A guard over these ranges of addresses.
    pub fn over(spans: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut n_guards = N_GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a question without arguments.
        let owner = unsafe { libc::getpid() };
        if OWNER.swap(owner, SeqCst) != owner {
            // The first guard of this process, which may be the child of one whose calls are none of ours.
            SLOTS[..N_USED.load(SeqCst)]
                .iter()
                .filter(|slot| slot.end.load(SeqCst) != 0)
                .for_each(Slot::release);
            *n_guards = 0;
        }
        if *n_guards == 0 {
            install();
        }
        *n_guards += 1;
        let mut free = SLOTS.iter().enumerate().filter(|(_, slot)| slot.end.load(SeqCst) == 0);
        let held = spans.into_iter().map(|span| {
            let (index, slot) = if span.is_empty() { None } else { free.next() }?;
            N_USED.fetch_max(index + 1, SeqCst);
            let version = slot.take(&span);
            // A page that another call has just lost would not fault any more: look after taking the slot, as the
            // handler flags once before replacing a page and once after.
            if SLOTS[..N_USED.load(SeqCst)].iter().any(|other| other.has_lost_some_of(&span)) {
                slot.failed.fetch_max(version, SeqCst);
            }
            Some((slot, version))
        });
        Self { held: held.collect(), owner }
    }

    /// The first array that lost a page, by its place among the spans.
    pub fn failed(&self) -> Option<usize> {
        let failed = |(slot, version): &(&Slot, u64)| slot.failed.load(SeqCst) == *version;
        self.held.iter().position(|held| held.as_ref().is_some_and(failed))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut n_guards = N_GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
        if OWNER.load(SeqCst) != self.owner {
            return; // forked in the middle of the call: these slots were given up already
        }
        for &(slot, version) in self.held.iter().flatten() {
            if slot.failed.load(SeqCst) == version {
                condemn(slot.lost_start.load(SeqCst)..slot.lost_end.load(SeqCst));
            }
            slot.release();
        }
        *n_guards -= 1;
        if *n_guards == 0 {
            uninstall();
        }
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            failed: AtomicU64::new(0),
            lost_start: AtomicUsize::new(0),
            lost_end: AtomicUsize::new(0),
        }
    }

    /// Gives the slot an owner; returns its version.
    fn take(&self, span: &Range<usize>) -> u64 {
        self.version.fetch_add(1, SeqCst);
        self.start.store(span.start, SeqCst);
        self.end.store(span.end, SeqCst);
        self.lost_start.store(usize::MAX, SeqCst);
        self.lost_end.store(0, SeqCst);
        self.version.fetch_add(1, SeqCst) + 1
    }

    fn release(&self) {
        self.version.fetch_add(1, SeqCst);
        self.end.store(0, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    /// The slot's range and version, unless it is free or changing.
    fn read(&self) -> Option<(Range<usize>, u64)> {
        let version = self.version.load(SeqCst);
        let span = self.start.load(SeqCst)..self.end.load(SeqCst);
        (version.is_multiple_of(2) && span.end != 0 && self.version.load(SeqCst) == version)
            .then_some((span, version))
    }

    fn has_lost_some_of(&self, span: &Range<usize>) -> bool {
        self.read().is_some_and(|(_, version)| self.failed.load(SeqCst) == version)
            && self.lost_start.load(SeqCst) < span.end
            && span.start < self.lost_end.load(SeqCst)
    }
}

/// Puts the map of an empty file over these pages: touching it is SIGBUS, as it was before we came.
fn condemn(pages: Range<usize>) {
    if pages.is_empty() {
        return;
    }
    // SAFETY: the pages lie between two that the handler has replaced, in one array, which is lost.
    unsafe {
        // Not the function of that name: old C libraries, which wheels run on, lack it.
        let file =
            libc::syscall(libc::SYS_memfd_create, c"lossift-lost".as_ptr(), libc::MFD_CLOEXEC) as c_int;
        let (protection, flags) = if file < 0 {
            (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) // then SIGSEGV; but never zeros
        } else {
            (libc::PROT_READ, libc::MAP_SHARED)
        };
        libc::mmap(pages.start as *mut c_void, pages.len(), protection, flags | libc::MAP_FIXED, file, 0);
        if file >= 0 {
            libc::close(file);
        }
    }
}

// ------------------------------------------------------------------ the signal

/// Who handles SIGBUS now.
fn disposition() -> libc::sigaction {
    // SAFETY: sigaction is plain data, and asking changes nothing.
    unsafe {
        let mut current = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, null(), &raw mut current);
        current
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_bus_error as *const () as usize
}

/// Puts our handler in front of the one that is there.
fn install() {
    let current = disposition();
    if is_ours(&current) {
        return; // somebody who came after us put us back when he went
    }
    let bytes = |action: *const libc::sigaction| {
        // SAFETY: the action outlives the look, and began as zeros, padding and all.
        unsafe { std::slice::from_raw_parts(action.cast::<u8>(), size_of::<libc::sigaction>()) }
    };
    let known = PREVIOUS.load(SeqCst);
    if known.is_null() || bytes(known) != bytes(&raw const current) {
        PREVIOUS.store(Box::into_raw(Box::new(current)), SeqCst);
    }
    FORWARDED.store(0, SeqCst);
    // SAFETY: sysconf only answers.
    PAGE_BYTES.store(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize, SeqCst);
    put_ours_in_place(current);
}

fn put_ours_in_place(mut action: libc::sigaction) {
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler lives as long as the process: extension modules are never unloaded.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
}

/// Puts the previous handler back, unless somebody has replaced ours.
fn uninstall() {
    if is_ours(&disposition()) {
        // SAFETY: what `install` found there.
        unsafe { libc::sigaction(libc::SIGBUS, PREVIOUS.load(SeqCst), null_mut()) };
    }
}

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers; errno is this thread's and what we interrupted may be about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        let missing_page = (*info).si_code == libc::BUS_ADRERR;
        if !(missing_page && replace_page((*info).si_addr() as usize)) {
            forward(signal, info, context);
        }
        *libc::__errno_location() = errno;
    }
}

/// Puts a page of zeros where `address` lies, if that is in a guarded array, and flags all who will see it.
///
/// Two threads may do so for one page; the second page of zeros is as good as the first.
fn replace_page(address: usize) -> bool {
    let bytes = PAGE_BYTES.load(SeqCst);
    let page = address & !(bytes - 1);
    let flag = || {
        let mut guarded = false;
        for slot in &SLOTS[..N_USED.load(SeqCst)] {
            if let Some((span, version)) = slot.read()
                && span.start < page + bytes
                && page < span.end
            {
                slot.lost_start.fetch_min(page, SeqCst);
                slot.lost_end.fetch_max(page + bytes, SeqCst);
                slot.failed.fetch_max(version, SeqCst);
                guarded |= span.contains(&address);
            }
        }
        guarded
    };
    // SAFETY: the page can't be read, so nobody depends on what is there. Read-only: a write must not vanish unseen.
    let replaced = || unsafe {
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(page as *mut c_void, bytes, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED
    };
    // SAFETY: a question without arguments.
    let ours = OWNER.load(SeqCst) == unsafe { libc::getpid() };
    if !(ours && flag() && replaced()) {
        return false;
    }
    flag(); // whoever took a slot meanwhile
    true
}

/// Does what would have happened without us.
///
/// Nobody before us: the default action, for a fault by returning to it, so that a core dump shows the true place. A
/// handler before us is called while it is in our place, as if we had never been. If it returns and is still in place,
/// it coped, and we go in front of it again. If it put its own predecessor in place (as faulthandler does when it has
/// written its traceback), that one decides; should that be us, the signal comes back on the same thread, and the
/// default action ends it.
///
/// # Safety
/// What the kernel passed to a handler.
unsafe fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: pointers from the kernel; PREVIOUS was set before we were installed and is what sigaction gave.
    unsafe {
        let code = (*info).si_code;
        let comes_again = code > 0 && code != libc::BUS_MCEERR_AO;
        let thread = libc::syscall(libc::SYS_gettid) as i32;
        let previous = PREVIOUS.load(SeqCst);
        let handler = (*previous).sa_sigaction;
        if handler == libc::SIG_IGN && !comes_again {
            return;
        }
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN || FORWARDED.load(SeqCst) == thread {
            let mut default: libc::sigaction = std::mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const default, null_mut());
            if !comes_again {
                libc::raise(signal); // delivered when we return
            }
            return;
        }
        FORWARDED.store(thread, SeqCst);
        libc::sigaction(signal, previous, null_mut());
        if (*previous).sa_flags & libc::SA_SIGINFO == 0 {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        } else {
            type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        }
        let current = disposition();
        if current.sa_sigaction == handler {
            FORWARDED.store(0, SeqCst);
            put_ours_in_place(current);
        }
    }
}
