"use strict";
// The page is whole without this. Every few seconds its content is replaced by the newest one, unless somebody has selected text in it. What is
// open stays open, who has come somewhere by the keyboard stays there, and only what has changed is read out.
(() => {
  const every = 5000;
  const told = (page) => [...page.querySelectorAll("header .good, header .warn, header .bad, .state")].map((one) => one.textContent).join(" ");
  // A heading's figures change all the time: a word is news, a number is not.
  const words = (text) => text.replace(/\d[\d,.]*/g, "");
  const place = (one) => (one && one.id ? "#" + one.id : one && one.matches("summary") ? "#" + one.parentElement.id + ">summary" : null);
  let said = words(told(document));
  const show = (next) => {
    const open = new Set([...document.querySelectorAll("details[open]")].map((one) => one.id));
    for (const one of next.querySelectorAll("details")) one.open = open.has(one.id);
    const [at, turned] = [place(document.activeElement), [...document.querySelectorAll(".scroll")].map((one) => [place(one), one.scrollLeft])];
    document.querySelector("main").replaceWith(next.querySelector("main"));
    for (const [one, left] of turned) if (document.querySelector(one)) document.querySelector(one).scrollLeft = left;
    if (at && document.querySelector(at)) document.querySelector(at).focus({ preventScroll: true });
    document.title = next.title;
    const now = told(document);
    if (words(now) !== said) document.querySelector("#news").textContent = now;
    said = words(now);
  };
  const refresh = async () => {
    if (!document.hidden && !String(getSelection())) {
      try {
        const answer = await fetch("/", { cache: "no-store" });
        if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch { document.querySelector("#seen").textContent = "packhorse does not answer; this is what it said last."; }
    }
    setTimeout(refresh, every);
  };
  setTimeout(refresh, every);
})();
