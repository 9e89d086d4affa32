//! The KV cache: pages of 16 tokens, and sequences as lists of them.

use crate::kernels::{PAGE, Page, PageShape, Paged};

/// The pages of one sequence, in the order of its positions: numbers of pages in a [`Cache`].
#[derive(Default)]
pub(crate) struct Table(Vec<u32>);

impl Table {
    /// Tokens that its pages have room for.
    pub(crate) fn room(&self) -> usize {
        self.0.len() * PAGE
    }

    /// Its pages, the first tokens' first.
    pub(crate) fn pages(&self) -> &[u32] {
        &self.0
    }

    /// Appends a page, which holds the next 16 tokens or will.
    pub(crate) fn push(&mut self, page: u32) {
        self.0.push(page);
    }

    /// All its pages, which it has no longer.
    pub(crate) fn take(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.0)
    }
}

/// Pages, of which sequences take what they need. A page that comes back is wiped before anybody gets it again.
pub(crate) struct Cache {
    shape: PageShape,
    pages: Vec<Page>,
    /// Nobody's: wiped, or on a device and in the list of those that are to be.
    free: Vec<u32>,
    /// Most pages.
    limit: usize,
    /// Where the pages lie on a device, what it does not know yet.
    untold: Option<Untold>,
}

/// Pages of a device that changed hands since it was told. Nothing is computed before it is told.
#[derive(Default)]
pub(crate) struct Untold {
    /// Pages that there are so far.
    made: usize,
    /// To be wiped.
    pub(crate) returned: Vec<u32>,
    /// To be proven clean: they have a tenant.
    pub(crate) taken: Vec<u32>,
}

impl Untold {
    /// The device was told.
    pub(crate) fn clear(&mut self) {
        self.returned.clear();
        self.taken.clear();
    }
}

impl Cache {
    /// Without a page; it makes `limit` of them at most.
    pub(crate) fn new(shape: PageShape, limit: usize) -> Self {
        Self { shape, pages: Vec::new(), free: Vec::new(), limit, untold: None }
    }

    /// The books of `limit` pages on a device, which are clean.
    pub(crate) fn on_device(shape: PageShape, limit: usize) -> Self {
        Self { untold: Some(Untold::default()), ..Self::new(shape, limit) }
    }

    /// What the device is to be told, if the pages lie on one.
    pub(crate) fn untold(&mut self) -> Option<&mut Untold> {
        self.untold.as_mut()
    }

    /// Pages that there are so far.
    fn made(&self) -> usize {
        self.untold.as_ref().map_or(self.pages.len(), |untold| untold.made)
    }

    /// A page without a trace of earlier owners, or `None` at the limit.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => self.make()?,
        };
        if let Some(untold) = &mut self.untold {
            untold.taken.push(page);
        }
        Some(page)
    }

    fn make(&mut self) -> Option<u32> {
        let made = self.made();
        if made >= self.limit {
            return None;
        }
        match &mut self.untold {
            Some(untold) => untold.made += 1,
            None => self.pages.push(Page::new(self.shape)),
        }
        Some(u32::try_from(made).expect("memory ends before pages do"))
    }

    /// Takes a page back and wipes it, or has it wiped by the device before anything else is computed.
    pub(crate) fn give_back(&mut self, page: u32) {
        debug_assert!(!self.free.contains(&page), "a page has one owner");
        match &mut self.untold {
            Some(untold) => untold.returned.push(page),
            None => self.pages[page as usize].wipe(),
        }
        self.free.push(page);
    }

    /// Pages that can be taken.
    pub(crate) fn available(&self) -> usize {
        self.limit - self.made() + self.free.len()
    }

    /// Most pages.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Gives a sequence pages for `tokens` in all; false if they do not suffice.
    pub(crate) fn grow(&mut self, table: &mut Table, tokens: usize) -> bool {
        while table.room() < tokens {
            let Some(page) = self.take() else { return false };
            table.push(page);
        }
        true
    }

    /// Writes the keys and values of the token at `position` in one layer.
    pub(crate) fn write(
        &mut self,
        table: &Table,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let page = table.0[position / PAGE] as usize;
        self.pages[page].write(self.shape, layer, position % PAGE, keys, values);
    }

    /// A sequence's pages, to be attended to.
    pub(crate) fn sequence<'a>(&'a self, table: &'a Table) -> Paged<'a> {
        Paged { pages: &self.pages, table: &table.0, shape: self.shape }
    }

    /// Pages that were never needed.
    #[cfg(test)]
    pub(crate) fn unmade(&self) -> usize {
        self.limit - self.made()
    }

    /// Whether nothing is written in a page.
    #[cfg(test)]
    pub(crate) fn is_blank(&self, page: u32) -> bool {
        self.pages[page as usize].is_blank()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PageShape = PageShape { layers: 2, heads: 1, head_len: 16 };

    #[test]
    fn a_page_that_comes_back_is_wiped_before_it_is_anybodys_again() {
        let mut cache = Cache::new(SHAPE, 1);
        let mut table = Table::default();
        assert!(cache.grow(&mut table, 16));
        for layer in 0..2 {
            cache.write(&table, layer, 15, &[1.5; 16], &[-2.5; 16]);
        }
        let page = table.take()[0];
        assert!(!cache.is_blank(page), "it was written");
        cache.give_back(page);
        assert!(cache.is_blank(page), "it lies wiped, not only when it is taken");
        assert_eq!(cache.take(), Some(page), "the very page is used again");
    }

    #[test]
    fn no_page_is_made_beyond_the_limit() {
        let mut cache = Cache::new(SHAPE, 3);
        let mut table = Table::default();
        assert!(cache.grow(&mut table, 48));
        assert!(!cache.grow(&mut table, 49));
        assert_eq!((table.pages().len(), cache.available(), cache.take()), (3, 0, None));
        for page in table.take() {
            cache.give_back(page);
        }
        assert_eq!(cache.available(), 3);
    }
}
