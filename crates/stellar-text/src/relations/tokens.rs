//! Words and punctuation of a prompt.

use super::grammar::Grammar;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `{}`
    Subject,
    Comma,
    /// Any other punctuation.
    Stop,
    Preposition(String),
    Word(String),
}

impl Token {
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// Splits a prompt into lower-cased words and punctuation, and joins compound prepositions.
pub(super) fn tokenize(prompt: &str, grammar: &Grammar) -> Vec<Token> {
    let text =
        prompt.to_lowercase().replace('’', "'").replace("{}", " \u{0} ").replace('&', " and ");
    let mut raw = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || (matches!(c, '\'' | '-') && !word.is_empty()) {
            word.push(c);
            continue;
        }
        let trimmed = word.trim_end_matches(['\'', '-']);
        if !trimmed.is_empty() {
            raw.push(Token::Word(trimmed.to_owned()));
        }
        word.clear();
        match c {
            '\0' => raw.push(Token::Subject),
            ',' => raw.push(Token::Comma),
            '.' | ';' | ':' | '!' | '?' | '(' | ')' | '[' | ']' | '|' | '-' | '–' | '—' | '"'
            | '\n' => {
                raw.push(Token::Stop);
            }
            _ => {}
        }
    }
    let mut tokens = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let starts = |words: &[String]| {
            raw.len() >= at + words.len()
                && words.iter().zip(&raw[at..]).all(|(word, token)| token.word() == Some(word))
        };
        if starts(&["as".into(), "well".into(), "as".into()]) {
            tokens.push(Token::Word("and".to_owned()));
            at += 3;
        } else if let Some(compound) = grammar.compounds.iter().find(|words| starts(words)) {
            tokens.push(Token::Preposition(compound.join(" ")));
            at += compound.len();
        } else {
            tokens.push(match &raw[at] {
                Token::Word(word) if grammar.prepositions.contains(word) => {
                    Token::Preposition(word.clone())
                }
                token => token.clone(),
            });
            at += 1;
        }
    }
    tokens
}
