//! Small letters for pictures: a font of 5 by 7 pixels for the printable ASCII characters, drawn for this program.

/// Pixels from one letter to the next.
pub const ADVANCE: usize = 6;
/// Pixels of a letter from top to bottom.
pub const HEIGHT: usize = 7;

/// Six bands of sixteen letters, from the space on; a letter is five columns, a band seven lines.
#[rustfmt::skip]
const LETTERS: [&str; 42] = [
    "        #    # #   # #    #   ##     ##     #      #   #                                        ",
    "        #    # #   # #   #### ##  # #  #    #     #     #   # # #   #                         # ",
    "        #    # #  ##### # #      #  # #    #     #       #   ###    #                        #  ",
    "        #          # #   ###    #    #           #       #  ##### #####       #####         #   ",
    "        #         #####   # #  #    # # #        #       #   ###    #     ##               #    ",
    "                   # #  ####  #  ## #  #          #     #   # # #   #     #          ##   #     ",
    "        #          # #    #      ##  ## #          #   #                 #           ##         ",
    " ###    #    ###  #####    #  #####   ##  #####  ###   ###                  #       #      ###  ",
    "#   #  ##   #   #    #    ##  #      #        # #   # #   #   ##    ##     #         #    #   # ",
    "#  ##   #       #   #    # #  ####  #        #  #   # #   #   ##    ##    #   #####   #       # ",
    "# # #   #      #     #  #  #      # ####    #    ###   ####              #             #     #  ",
    "##  #   #     #       # #####     # #   #   #   #   #     #   ##    ##    #   #####   #     #   ",
    "#   #   #    #    #   #    #  #   # #   #   #   #   #    #    ##    #      #         #          ",
    " ###   ###  #####  ###     #   ###   ###    #    ###   ##          #        #       #       #   ",
    " ###    #   ####   ###  ###   ##### #####  ###  #   #  ###    ### #   # #     #   # #   #  ###  ",
    "#   #  # #  #   # #   # #  #  #     #     #   # #   #   #      #  #  #  #     ## ## ##  # #   # ",
    "# ### #   # #   # #     #   # #     #     #     #   #   #      #  # #   #     # # # # # # #   # ",
    "# # # #   # ####  #     #   # ####  ####  # ### #####   #      #  ##    #     # # # #  ## #   # ",
    "# ##  ##### #   # #     #   # #     #     #   # #   #   #      #  # #   #     #   # #   # #   # ",
    "#     #   # #   # #   # #  #  #     #     #   # #   #   #   #  #  #  #  #     #   # #   # #   # ",
    " #### #   # ####   ###  ###   ##### #      #### #   #  ###   ##   #   # ##### #   # #   #  ###  ",
    "####   ###  ####   #### ##### #   # #   # #   # #   # #   # #####  ###         ###    #         ",
    "#   # #   # #   # #       #   #   # #   # #   # #   # #   #     #  #    #        #   # #        ",
    "#   # #   # #   # #       #   #   # #   # #   #  # #   # #     #   #     #       #  #   #       ",
    "####  #   # ####   ###    #   #   # #   # # # #   #     #     #    #      #      #              ",
    "#     # # # # #       #   #   #   # #   # # # #  # #    #    #     #       #     #              ",
    "#     #  #  #  #      #   #   #   #  # #  ## ## #   #   #   #      #        #    #              ",
    "#      ## # #   # ####    #    ###    #   #   # #   #   #   #####  ###         ###        ##### ",
    " #          #               #         ##        #       #      #   #     ##                     ",
    "  #         #               #        #          #                  #      #                     ",
    "       ###  ####   ###   ####  ###  ####   #### # ##   ##     ##   #  #   #   ## #  # ##   ###  ",
    "          # #   # #     #   # #   #  #    #   # ##  #   #      #   # #    #   # # # ##  # #   # ",
    "       #### #   # #     #   # #####  #     #### #   #   #      #   ##     #   # # # #   # #   # ",
    "      #   # #   # #     #   # #      #        # #   #   #   #  #   # #    #   # # # #   # #   # ",
    "       #### ####   ###   ####  ###   #     ###  #   #  ###   ##    #  #  ###  # # # #   #  ###  ",
    "                         #                                           #    #    #                ",
    "                         #                                          #     #     #               ",
    "####   #### # ##   #### ####  #   # #   # #   # #   # #   # #####   #     #     #    #          ",
    "#   # #   # ##    #      #    #   # #   # # # #  # #  #   #    #   #      #      #  # # #       ",
    "####   #### #      ###   #    #   # #   # # # #   #    ####   #     #     #     #      #        ",
    "#         # #         #  #    #  ##  # #  # # #  # #      #  #      #     #     #               ",
    "#         # #     ####    ##   ## #   #    # #  #   #  ###  #####    #    #    #                ",
];

/// Whether a letter has ink at (column, line). What is no printable ASCII looks like a question mark.
fn inked(letter: char, column: usize, line: usize) -> bool {
    let code = if letter.is_ascii_graphic() || letter == ' ' { letter as usize } else { '?' as usize } - 32;
    LETTERS[code / 16 * HEIGHT + line].as_bytes()[code % 16 * ADVANCE + column] != b' '
}

/// Draws one line of text on RGB pixels of `width` a line, its top left corner at (left, top). What does not fit is not drawn.
pub fn draw(pixels: &mut [u8], width: usize, (left, top): (usize, usize), text: &str, colour: [u8; 3]) {
    for (place, letter) in text.chars().enumerate() {
        for (line, column) in (0..HEIGHT).flat_map(|line| (0..ADVANCE - 1).map(move |column| (line, column))) {
            let (x, y) = (left + place * ADVANCE + column, top + line);
            let pixel = if x < width { pixels.get_mut((y * width + x) * 3..(y * width + x + 1) * 3) } else { None };
            if let Some(pixel) = pixel.filter(|_| inked(letter, column, line)) {
                pixel.copy_from_slice(&colour);
            }
        }
    }
}

/// `text`, or as much of its beginning as fits into so many letters with two dots behind it.
pub fn fitted(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(letters.saturating_sub(2)).collect();
    format!("{beginning}..").chars().take(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_character_has_a_letter_of_its_own() {
        assert!(LETTERS.iter().all(|line| line.len() == 16 * ADVANCE && line.is_ascii()));
        let ink = |letter: char| -> Vec<bool> { (0..35).map(|at| inked(letter, at % 5, at / 5)).collect() };
        let all: HashSet<Vec<bool>> = (' '..='~').map(ink).collect();
        assert_eq!(all.len(), 95);
        assert!(ink(' ').iter().all(|&ink| !ink));
        for other in ['\u{e4}', '\n', '\u{7f}', '\u{1f600}'] {
            assert_eq!(ink(other), ink('?'));
        }
    }

    #[test]
    fn text_is_drawn_where_it_fits() {
        let (width, height) = (14, 9);
        let mut pixels = vec![255; width * height * 3];
        draw(&mut pixels, width, (1, 1), "LLL", [0, 0, 200]);
        let lines: Vec<String> = pixels
            .chunks(width * 3)
            .map(|line| line.chunks(3).map(|pixel| if pixel == [0, 0, 200] { '#' } else { '.' }).collect())
            .collect();
        assert_eq!(lines[0], "..............");
        assert_eq!(lines[1], ".#.....#.....#");
        assert_eq!(lines[7], ".#####.#####.#");
        assert_eq!(lines[8], "..............");
        draw(&mut pixels, width, (1, 8), "L", [0, 0, 0]);
        assert_eq!(fitted("abc", 3), "abc");
        assert_eq!(fitted("abcdef", 5), "abc..");
        assert_eq!(fitted("\u{e4}\u{f6}\u{fc}\u{df}", 3), "\u{e4}..");
        assert_eq!(fitted("abc", 1), ".");
    }
}
