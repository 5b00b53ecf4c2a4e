//! What a key does. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::view::{Request, View};

/// What is shown below the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Everything at a glance.
    #[default]
    Overview,
    /// One line per process.
    Ranks,
    /// One line per request.
    Requests,
    /// One line per CUDA graph.
    Graphs,
}

impl Tab {
    /// In their order.
    pub const ALL: [Self; 4] = [Self::Overview, Self::Ranks, Self::Requests, Self::Graphs];

    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Ranks => "Ranks",
            Self::Requests => "Requests",
            Self::Graphs => "Graphs",
        }
    }

    fn moved(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// By what requests are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The oldest first.
    #[default]
    Age,
    /// The most often preempted first.
    Preemptions,
    /// By name.
    Id,
}

impl Sort {
    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Preemptions => "preemptions",
            Self::Id => "id",
        }
    }
}

/// What the person at the terminal has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// What is shown.
    pub tab: Tab,
    /// The numbers stand still.
    pub paused: bool,
    /// The keys are explained.
    pub help: bool,
    /// First line of the list that is shown.
    pub scroll: usize,
    /// By what requests are sorted.
    pub sort: Sort,
    /// Only requests whose id holds this.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
}

/// What is to be done beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Leave.
    Quit,
    /// Count anew.
    Reset,
}

impl Choices {
    /// Takes a key. `lines` is the length of the list that is shown.
    pub fn key(&mut self, key: KeyEvent, lines: usize) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') {
                Action::Quit
            } else {
                Action::None
            };
        }
        if self.typing {
            return self.typed(key.code);
        }
        let last = lines.saturating_sub(1);
        match key.code {
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('r') => return Action::Reset,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = (self.scroll + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = (self.scroll + 10).min(last),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = last,
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Age => Sort::Preemptions,
                    Sort::Preemptions => Sort::Id,
                    Sort::Id => Sort::Age,
                };
            }
            KeyCode::Char('/') => {
                self.typing = true;
                self.tab = Tab::Requests;
                self.scroll = 0;
            }
            _ => {}
        }
        Action::None
    }

    fn turn(&mut self, by: usize) {
        self.tab = self.tab.moved(by);
        self.scroll = 0;
    }

    fn typed(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
            _ => {}
        }
        Action::None
    }

    /// The requests as chosen.
    pub fn requests<'v>(&self, view: &'v View) -> Vec<&'v Request> {
        let mut requests: Vec<&Request> = view
            .requests
            .iter()
            .filter(|request| request.id.contains(&self.filter))
            .collect();
        match self.sort {
            // They come by age.
            Sort::Age => {}
            Sort::Preemptions => {
                requests.sort_by_key(|request| std::cmp::Reverse(request.preemptions));
            }
            Sort::Id => requests.sort_by(|a, b| a.id.cmp(&b.id)),
        }
        requests
    }

    /// Length of the list that is shown.
    pub fn lines(&self, view: &View) -> usize {
        match self.tab {
            Tab::Overview => 0,
            Tab::Ranks => view.ranks.len(),
            Tab::Requests => self.requests(view).len(),
            Tab::Graphs => view.graphs.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(choices: &mut Choices, code: KeyCode) -> Action {
        choices.key(KeyEvent::new(code, KeyModifiers::NONE), 3)
    }

    #[test]
    fn keys_do_what_people_expect() {
        let mut choices = Choices::default();
        assert_eq!(press(&mut choices, KeyCode::Char('r')), Action::Reset);
        press(&mut choices, KeyCode::Char('p'));
        assert!(choices.paused);
        press(&mut choices, KeyCode::Tab);
        assert_eq!(choices.tab, Tab::Ranks);
        press(&mut choices, KeyCode::Left);
        press(&mut choices, KeyCode::Left);
        assert_eq!(choices.tab, Tab::Graphs);
        for _ in 0..9 {
            press(&mut choices, KeyCode::Down);
        }
        assert_eq!(choices.scroll, 2);
        press(&mut choices, KeyCode::Char('?'));
        assert!(choices.help);
        assert_eq!(press(&mut choices, KeyCode::Esc), Action::None);
        assert_eq!(press(&mut choices, KeyCode::Esc), Action::Quit);
        assert_eq!(press(&mut choices, KeyCode::Char('q')), Action::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(choices.key(interrupt, 0), Action::Quit);
    }

    #[test]
    fn a_filter_is_typed_and_q_is_a_letter_of_it() {
        let mut choices = Choices::default();
        for letter in "/q7".chars() {
            assert_eq!(press(&mut choices, KeyCode::Char(letter)), Action::None);
        }
        assert_eq!(
            (choices.filter.as_str(), choices.tab),
            ("q7", Tab::Requests)
        );
        press(&mut choices, KeyCode::Enter);
        let request = |id: &str, preemptions| Request {
            id: id.into(),
            preemptions,
            ..Request::default()
        };
        let view = View {
            requests: vec![request("aq7", 0), request("b", 9), request("q70", 3)],
            ..View::default()
        };
        let ids = |choices: &Choices| {
            choices
                .requests(&view)
                .iter()
                .map(|r| r.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&choices), ["aq7", "q70"]);
        press(&mut choices, KeyCode::Char('s'));
        assert_eq!(ids(&choices), ["q70", "aq7"]);
        press(&mut choices, KeyCode::Esc);
        assert_eq!(choices.lines(&view), 3);
    }
}
