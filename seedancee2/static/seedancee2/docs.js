// Tabs for the languages of the examples, and the table of contents. Without this file every language is shown.
(function () {
  "use strict";

  var KEY = "seedancee2-docs-language";
  var LANGUAGES = ["bash", "javascript", "python"];
  var root = document.documentElement;

  function remembered() {
    try {
      return localStorage.getItem(KEY);
    } catch (error) {
      return null;
    }
  }

  function remember(language) {
    try {
      localStorage.setItem(KEY, language);
    } catch (error) {
      // Storage is off: the choice holds until the page is left.
    }
  }

  // At once, before the examples are drawn; the style sheet hides the others.
  root.dataset.language = LANGUAGES.indexOf(remembered()) < 0 ? LANGUAGES[0] : remembered();

  function show(language) {
    root.dataset.language = language;
    document.querySelectorAll(".languages [role=tab]").forEach(function (tab) {
      var isChosen = tab.dataset.language === language;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    });
  }

  // All examples change at once; the one in use stays where it is on the screen.
  function choose(tab) {
    var before = tab.getBoundingClientRect().top;
    show(tab.dataset.language);
    remember(tab.dataset.language);
    window.scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
  }

  function onKey(event) {
    var tabs = Array.prototype.slice.call(event.currentTarget.children);
    var at = tabs.indexOf(document.activeElement);
    var to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    var tab = tabs[(to + tabs.length) % tabs.length];
    tab.focus({ preventScroll: true });
    choose(tab);
  }

  function addTabs(group) {
    var list = document.createElement("div");
    list.className = "tablist";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "Language of the example");
    group.querySelectorAll(".code").forEach(function (block) {
      var id = block.querySelector("pre").id;
      var tab = document.createElement("button");
      tab.type = "button";
      tab.id = id + "-tab";
      tab.dataset.language = block.dataset.language;
      tab.textContent = block.querySelector("span").textContent;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", id + "-panel");
      tab.addEventListener("click", function () {
        choose(tab);
      });
      block.id = id + "-panel";
      block.setAttribute("role", "tabpanel");
      block.setAttribute("aria-labelledby", tab.id);
      list.append(tab);
    });
    list.addEventListener("keydown", onKey);
    group.prepend(list);
    group.classList.add("tabbed");
  }

  // The entry of the section on screen is marked; on a wide screen it is kept in view too.
  function followSections() {
    var entries = {};
    document.querySelectorAll(".contents nav a").forEach(function (link) {
      entries[link.hash.slice(1)] = link;
    });
    var headings = document.querySelectorAll(".document h2[id], .document h3[id]");
    var marked = null;

    function mark() {
      var current = headings[0];
      headings.forEach(function (heading) {
        if (heading.getBoundingClientRect().top < 120) current = heading;
      });
      var link = current && entries[current.id];
      if (!link || link === marked) return;
      if (marked) marked.removeAttribute("aria-current");
      marked = link;
      marked.setAttribute("aria-current", "true");
      var box = document.querySelector("aside");
      if (box.scrollHeight > box.clientHeight) {
        box.scrollTop = link.offsetTop - box.offsetTop - box.clientHeight / 2;
      }
    }

    var isAsked = false;
    window.addEventListener(
      "scroll",
      function () {
        if (isAsked) return;
        isAsked = true;
        window.requestAnimationFrame(function () {
          isAsked = false;
          mark();
        });
      },
      { passive: true }
    );
    mark();
  }

  // Beside the text the contents are always open; above it they open on demand and close once used.
  function foldContents() {
    var contents = document.querySelector(".contents");
    var isWide = window.matchMedia("(min-width: 64rem)");
    function fold() {
      contents.open = isWide.matches;
    }
    isWide.addEventListener("change", fold);
    contents.querySelector("nav").addEventListener("click", function (event) {
      if (event.target.closest("a")) fold();
    });
    fold();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll(".languages").forEach(addTabs);
    show(root.dataset.language);
    foldContents();
    followSections();
  });
})();
