//! Parts of vectors that a snapshot of state may have, too.
//!
//! A snapshot takes the pages of a vector as they are, between two epochs, in no time; what it is written of stays as it was, since the first
//! change of a page afterwards is made in a copy. Pages that nobody has any more by then are not copied.

use std::ops::Deref;
use std::sync::Arc;

/// A vector of plain elements that is shared until it is changed.
#[derive(Clone)]
pub(super) struct Page<T> {
    /// What it holds, unless it is shared: then it is empty.
    own: Vec<T>,
    shared: Option<Arc<Vec<T>>>,
}

impl<T: Copy> Page<T> {
    /// To be changed.
    #[inline]
    pub fn own(&mut self) -> &mut Vec<T> {
        if self.shared.is_some() {
            self.part();
        }
        &mut self.own
    }

    #[cold]
    fn part(&mut self) {
        let copied = |shared: Arc<Vec<T>>| {
            let mut own = Vec::with_capacity(shared.capacity());
            own.extend_from_slice(&shared);
            own
        };
        if let Some(shared) = self.shared.take() {
            self.own = Arc::try_unwrap(shared).unwrap_or_else(copied);
        }
    }

    /// The same for somebody else: nothing is copied until one of both changes it.
    pub fn share(&mut self) -> Self {
        let own = &mut self.own;
        let shared = self.shared.get_or_insert_with(|| Arc::new(std::mem::take(own)));
        Page { own: Vec::new(), shared: Some(Arc::clone(shared)) }
    }

    /// Elements there is room for.
    pub fn capacity(&self) -> usize {
        self.shared.as_ref().map_or(self.own.capacity(), |shared| shared.capacity())
    }
}

impl<T> Deref for Page<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.shared {
            None => &self.own,
            Some(shared) => shared,
        }
    }
}

impl<T> From<Vec<T>> for Page<T> {
    fn from(own: Vec<T>) -> Self {
        Page { own, shared: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_others_have_as_it_was() {
        let mut page = Page::from(Vec::with_capacity(8));
        page.own().extend([1, 2, 3]);
        let before = page.share();
        assert_eq!((&page[..], page.capacity(), before.as_ptr()), (&[1, 2, 3][..], 8, page.as_ptr()));
        page.own()[1] = 7;
        page.own().push(4);
        assert_eq!((&page[..], page.capacity(), &before[..]), (&[1, 7, 3, 4][..], 8, &[1, 2, 3][..]));
    }

    #[test]
    fn what_nobody_else_has_any_more_is_not_copied() {
        let mut page = Page::from(vec![1, 2, 3]);
        let at = page.as_ptr();
        assert_eq!(page.share().as_ptr(), page.share().as_ptr());
        page.own().truncate(2);
        assert_eq!((&page[..], page.as_ptr()), (&[1, 2][..], at));
    }
}
