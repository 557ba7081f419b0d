//! Vectors that grow without being moved.
//!
//! A `Vec` of ten million elements doubles by asking for as much memory again as it has, which the system clears, and copying all of it: one
//! epoch in a while takes a hundred times what the others do, and half of what a load writes is written twice. Pages are filled once.

use std::ops::{Index, IndexMut};

use super::page::Page;

/// Bits of an index that say where in its page an element is.
const BITS: u32 = if cfg!(test) { 4 } else { 15 };
/// Elements of a page.
const PAGE: usize = 1 << BITS;

/// A vector in pages. As long as there is one page only, that grows as a `Vec` does, so a small one is small.
#[derive(Clone)]
pub struct Paged<T> {
    /// All but the last are full.
    pages: Vec<Page<T>>,
    len: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Paged { pages: Vec::new(), len: 0 }
    }
}

impl<T: Copy> Paged<T> {
    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element, if there are so many.
    #[inline]
    pub fn get(&self, at: usize) -> Option<T> {
        self.pages.get(at >> BITS)?.get(at & (PAGE - 1)).copied()
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at >> BITS)?.own().get_mut(at & (PAGE - 1))
    }

    /// Appends one.
    #[inline]
    pub fn push(&mut self, value: T) {
        match self.pages.last_mut() {
            Some(last) if last.len() < PAGE => last.own().push(value),
            _ => self.page().push(value),
        }
        self.len += 1;
    }

    /// The page that the next element belongs to.
    #[cold]
    fn page(&mut self) -> &mut Vec<T> {
        let at = self.len >> BITS;
        if at == self.pages.len() {
            self.pages.push(if at == 0 { Vec::new() } else { Vec::with_capacity(PAGE) }.into());
        }
        self.pages[at].own()
    }

    /// Makes it so long: new ones are `value`, those beyond are forgotten.
    #[inline]
    pub fn resize(&mut self, len: usize, value: T) {
        // That is how most grow.
        if len == self.len + 1 {
            self.push(value);
        } else if len != self.len {
            self.resize_by_far(len, value);
        }
    }

    fn resize_by_far(&mut self, len: usize, value: T) {
        while self.len < len {
            let at = self.len & (PAGE - 1);
            let end = PAGE.min(at + len - self.len);
            self.page().resize(end, value);
            self.len += end - at;
        }
        if len < self.len {
            self.pages.truncate(len.div_ceil(PAGE));
            if let Some(last) = self.pages.get_mut(len >> BITS) {
                last.own().truncate(len & (PAGE - 1));
            }
            self.len = len;
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + Clone + '_ {
        Iter { rest: &[], pages: self.pages.iter(), left: self.len }
    }

    /// The same, page by page.
    pub fn slices(&self) -> impl Iterator<Item = &[T]> {
        self.pages.iter().map(|page| &**page)
    }

    /// The same for somebody else: nothing is copied until one of both changes it, and then a page of it.
    pub fn share(&mut self) -> Self {
        Paged { pages: self.pages.iter_mut().map(Page::share).collect(), len: self.len }
    }

    /// All of them, without those before `from`.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = T> + '_ {
        let (page, within) = (from >> BITS, from & (PAGE - 1));
        let pages = self.pages.get(page..).unwrap_or_default();
        pages.iter().enumerate().flat_map(move |(at, page)| {
            page.get(if at == 0 { within } else { 0 }..).unwrap_or_default().iter().copied()
        })
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let elements: usize = self.pages.iter().map(Page::capacity).sum();
        elements * size_of::<T>() + self.pages.capacity() * size_of::<Page<T>>()
    }
}

#[derive(Clone)]
struct Iter<'a, T> {
    rest: &'a [T],
    pages: std::slice::Iter<'a, Page<T>>,
    left: usize,
}

impl<T: Copy> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            if let Some((first, rest)) = self.rest.split_first() {
                self.rest = rest;
                self.left -= 1;
                return Some(*first);
            }
            self.rest = self.pages.next()?;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Copy> ExactSizeIterator for Iter<'_, T> {}

impl<T> Index<usize> for Paged<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.pages[at >> BITS][at & (PAGE - 1)]
    }
}

impl<T: Copy> IndexMut<usize> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at >> BITS].own()[at & (PAGE - 1)]
    }
}

impl<T: Copy> From<Vec<T>> for Paged<T> {
    fn from(all: Vec<T>) -> Self {
        let len = all.len();
        if len <= PAGE {
            return Paged { pages: if len == 0 { vec![] } else { vec![all.into()] }, len };
        }
        let page = |part: &[T]| {
            let mut page = Vec::with_capacity(PAGE);
            page.extend_from_slice(part);
            page.into()
        };
        Paged { pages: all.chunks(PAGE).map(page).collect(), len }
    }
}

impl<T: Copy> FromIterator<T> for Paged<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut paged = Paged::default();
        let mut all = all.into_iter();
        loop {
            let room = PAGE - (paged.len & (PAGE - 1));
            let before = paged.len;
            let page = paged.page();
            let start = page.len();
            page.extend(all.by_ref().take(room));
            paged.len += page.len() - start;
            if paged.len < before + room {
                if paged.len & (PAGE - 1) == 0 {
                    paged.pages.truncate(paged.len >> BITS);
                }
                return paged;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector() {
        let mut rng = 1_u64;
        let mut random = move |below: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % below
        };
        for _ in 0..200 {
            let start: Vec<u32> = (0..random(3 * PAGE as u64)).map(|i| i as u32).collect();
            let mut paged: Paged<u32> =
                if random(2) == 0 { start.iter().copied().collect() } else { start.clone().into() };
            let mut plain = start;
            let (mut shared, mut was): (Paged<u32>, Vec<u32>) = Default::default();
            for step in 0..50 {
                match random(5) {
                    0 => {
                        let len = random(4 * PAGE as u64) as usize;
                        paged.resize(len, step);
                        plain.resize(len, step);
                    }
                    1 if !plain.is_empty() => {
                        let at = random(plain.len() as u64) as usize;
                        (paged[at], plain[at]) = (step, step);
                    }
                    2 => (shared, was) = (paged.share(), plain.clone()),
                    _ => {
                        paged.push(step);
                        plain.push(step);
                    }
                }
                assert!(shared.iter().eq(was.iter().copied()), "what is shared stays as it was");
                assert!(paged.iter().eq(plain.iter().copied()) && paged.iter().len() == plain.len());
                let from = random(4 * PAGE as u64) as usize;
                assert!(paged.iter_from(from).eq(plain.iter().skip(from).copied()));
                assert_eq!((paged.len(), paged.get(from)), (plain.len(), plain.get(from).copied()));
            }
        }
    }

    #[test]
    fn what_is_small_takes_little() {
        let paged: Paged<u32> = (0..3).collect();
        assert!(paged.heap_size() <= 4 * 4 + 4 * size_of::<Page<u32>>(), "{}", paged.heap_size());
        assert_eq!(Paged::<u32>::default().heap_size(), 0);
    }
}
