//! An entry for a browser.

use pulldown_cmark::{CowStr, Event, Tag, TagEnd, html as markup};

use super::{Explanation, Leads, leads};

/// The entry as HTML. Its links lead to other entries of this program, and to nothing that it does not have.
pub(crate) fn html(entry: &Explanation) -> String {
    let mut links = Vec::new();
    let events = entry.parsed().filter_map(|event| match event {
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let leads = leads(&dest_url);
            links.push(leads.clone());
            let to = |url: String| Event::Start(Tag::Link { link_type, dest_url: CowStr::from(url), title, id });
            match leads {
                Leads::To(code) => Some(to(format!("/reasons/{code}"))),
                Leads::Out => Some(to(dest_url.into_string())),
                Leads::Docs(_) => None,
            }
        }
        Event::End(TagEnd::Link) => match links.pop() {
            Some(Leads::Docs(file)) => Some(Event::Text(format!(" ({file})").into())),
            _ => Some(event),
        },
        // The document has none; what is no Markdown stays text.
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        other => Some(other),
    });
    let mut html = String::new();
    markup::push_html(&mut html, events);
    html
}
