//! Columns, as Go's text/tabwriter lays them out with docker's settings: cells end at a tab, a
//! column is as wide as its widest cell plus three, and ten at least. A column ends at a line that
//! does not have it.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lays out lines of tab-terminated cells with docker's usual widths.
pub(crate) fn layout(text: &str) -> String {
    layout_with(text, MIN_WIDTH, PADDING)
}

/// Lays out with other widths.
pub(crate) fn layout_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    for (at, cells) in lines.iter().enumerate() {
        for column in 0..cells.len() - 1 {
            if widths[at][column] == 0 {
                measure(&lines, &mut widths, at, column, min_width, padding);
            }
        }
    }
    render(&lines, &widths)
}

/// Finds the lines from `start` on that have `column` too, and gives them one width.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    start: usize,
    column: usize,
    min_width: usize,
    padding: usize,
) {
    let block = lines[start..].iter().take_while(|cells| cells.len() - 1 > column);
    let length = block.clone().count();
    let widest = block.map(|cells| cells[column].chars().count() + padding).max();
    let width = widest.unwrap_or_default().max(min_width);
    for line in &mut widths[start..start + length] {
        line[column] = width;
    }
}

fn render(lines: &[Vec<&str>], widths: &[Vec<usize>]) -> String {
    let mut out = String::new();
    for (at, (cells, widths)) in lines.iter().zip(widths).enumerate() {
        if at > 0 {
            out.push('\n');
        }
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        out.push_str(cells[cells.len() - 1]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(layout("A\tB\nlong cell here\tx\n"), "A                B\nlong cell here   x\n");
        assert_eq!(layout("ID\tN\n"), "ID        N\n");
    }

    #[test]
    fn a_line_without_the_column_ends_it() {
        assert_eq!(layout("aaaaaaaaaaaa\tb\nc\nd\te\n"), "aaaaaaaaaaaa   b\nc\nd         e\n");
    }
}
