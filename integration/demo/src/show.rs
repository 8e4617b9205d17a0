//! How the demo speaks to the person before the screen.

pub(crate) fn title(text: &str) {
    println!("\n== {text}");
}

pub(crate) fn step(text: &str) {
    println!("   + {text}");
}

pub(crate) fn say(text: &str) {
    println!("   {text}");
}

pub(crate) fn lines(text: &str) {
    for line in text.lines() {
        println!("     | {line}");
    }
}

pub(crate) fn refused(what: &str, line: &str) {
    println!("   x {what}\n     {line}");
}

pub(crate) fn twin() {
    println!("     the same without the fault: starts");
}
