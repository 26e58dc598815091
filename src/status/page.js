"use strict";
// The page is whole without this. Every few seconds its content is replaced by the newest one, unless somebody is at work in it.
(() => {
  const every = 5000;
  const opened = () => new Set([...document.querySelectorAll("details[open]")].map((one) => one.id));
  const refresh = async () => {
    const inUse = document.activeElement && document.activeElement !== document.body;
    if (!document.hidden && !inUse && !String(getSelection())) {
      try {
        const answer = await fetch("/", { cache: "no-store" });
        if (answer.ok) {
          const next = new DOMParser().parseFromString(await answer.text(), "text/html");
          const open = opened();
          for (const one of next.querySelectorAll("details")) one.open = open.has(one.id);
          document.querySelector("main").replaceWith(next.querySelector("main"));
          document.title = next.title;
        }
      } catch { document.querySelector("#seen").textContent = "packhorse does not answer; this is what it said last."; }
    }
    setTimeout(refresh, every);
  };
  setTimeout(refresh, every);
})();
