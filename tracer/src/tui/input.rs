//! Handles keys and the mouse.

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::{App, Sort, View};

/// What `c` searches for.
const CLOSE_WAIT: &str = "close_wait";

impl App {
    /// Handles a key; true if it ends the program.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return true;
        }
        if self.typing {
            self.type_search(key.code);
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('?') | KeyCode::F(1) => self.show(View::Help),
            KeyCode::Char('d') => self.show(View::Diagram),
            KeyCode::Char('f' | ' ') => self.freeze(),
            KeyCode::Esc if self.view != View::Sockets => self.show(View::Sockets),
            KeyCode::Esc => self.search.clear(),
            _ if matches!(self.view, View::Diagram | View::Help | View::Detail) => self.scroll_key(key.code),
            KeyCode::Enter if self.selected().is_some() => self.show(View::Detail),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('c') => {
                self.search = if self.search == CLOSE_WAIT { String::new() } else { CLOSE_WAIT.into() };
            }
            KeyCode::Char('s') => {
                let at = Sort::ALL.iter().position(|sort| *sort == self.rows.sort).unwrap_or(0);
                self.rows.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
            }
            KeyCode::Char(digit @ '1'..='6') => {
                self.rows.sort = Sort::ALL[digit as usize - '1' as usize];
            }
            KeyCode::Char('r') => self.rows.reverse = !self.rows.reverse,
            code => {
                if let Some(by) = self.distance(code) {
                    self.rows.step(by);
                }
                return false;
            }
        }
        self.refresh(self.now_ns);
        false
    }

    /// Shows a view; if it is already shown, shows the table instead.
    fn show(&mut self, view: View) {
        self.view = if self.view == view { View::Sockets } else { view };
        self.scroll = 0;
    }

    fn type_search(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.search.clear();
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(c) => self.search.push(c),
            _ => {}
        }
        self.refresh(self.now_ns);
    }

    fn distance(&self, code: KeyCode) -> Option<isize> {
        let page = isize::try_from(self.table_at.height.max(3) - 2).unwrap_or(1);
        Some(match code {
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -page,
            KeyCode::PageDown => page,
            KeyCode::Home | KeyCode::Char('g') => isize::MIN,
            KeyCode::End | KeyCode::Char('G') => isize::MAX,
            _ => return None,
        })
    }

    fn scroll_key(&mut self, code: KeyCode) {
        match code {
            // From the view of one socket to that of the next socket.
            KeyCode::Left => self.rows.step(-1),
            KeyCode::Right => self.rows.step(1),
            KeyCode::Enter if self.view == View::Detail => self.show(View::Sockets),
            code => {
                let by = self.distance(code).unwrap_or(0).clamp(-1000, 1000) as i16;
                self.scroll = self.scroll.saturating_add_signed(by);
            }
        }
    }

    /// Handles a mouse event.
    pub fn mouse(&mut self, event: MouseEvent) {
        let table = self.table_at;
        let (first, lines) = (table.y + 1, table.height.saturating_sub(1));
        match (event.kind, self.view) {
            (MouseEventKind::ScrollUp, View::Sockets) => self.rows.step(-3),
            (MouseEventKind::ScrollDown, View::Sockets) => self.rows.step(3),
            (MouseEventKind::ScrollUp, _) => self.scroll = self.scroll.saturating_sub(3),
            (MouseEventKind::ScrollDown, _) => self.scroll = self.scroll.saturating_add(3),
            (MouseEventKind::Down(MouseButton::Left), View::Sockets) => {
                if event.row == table.y {
                    if let Some(sort) = self.columns.sort_at(event.column) {
                        self.rows.sort = sort;
                        self.refresh(self.now_ns);
                    }
                } else if (first..first + lines).contains(&event.row) {
                    let row = usize::from(event.row - first);
                    let at_row = self.rows.window(lines.into()).get(row).copied();
                    if at_row.is_some() && at_row == self.rows.selected() {
                        self.show(View::Detail);
                    } else if let Some(conn) = at_row {
                        self.select(conn);
                    }
                }
            }
            (MouseEventKind::Down(MouseButton::Right), View::Detail | View::Diagram | View::Help) => {
                self.show(View::Sockets);
            }
            _ => {}
        }
    }
}
