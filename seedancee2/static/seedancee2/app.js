// Copy buttons, and forms that are sent once. Every page works without this file.
(function () {
  "use strict";

  function say(button, text) {
    var label = button.dataset.label || button.textContent;
    button.dataset.label = label;
    button.textContent = text;
    window.setTimeout(function () {
      button.textContent = label;
    }, 2000);
  }

  function select(element) {
    var range = document.createRange();
    range.selectNodeContents(element);
    window.getSelection().removeAllRanges();
    window.getSelection().addRange(range);
  }

  function prepareCopying(root) {
    root.querySelectorAll("[data-copy]").forEach(function (button) {
      var source = document.getElementById(button.dataset.copy);
      if (!source) return;
      button.hidden = false;
      button.addEventListener("click", function () {
        var text = source.textContent.trim();
        if (!navigator.clipboard) {
          // Plain HTTP beyond localhost has no clipboard; the text is selected for the person to copy.
          select(source);
          say(button, "Press Ctrl+C");
          return;
        }
        navigator.clipboard.writeText(text).then(
          function () {
            say(button, "Copied");
          },
          function () {
            select(source);
            say(button, "Press Ctrl+C");
          }
        );
      });
    });
  }
  prepareCopying(document);
  // Parts of a page that were fetched anew have buttons too.
  document.addEventListener("htmx:load", function (event) {
    if (event.target !== document.body) prepareCopying(event.target);
  });

  document.querySelectorAll("form[data-once]").forEach(function (form) {
    form.addEventListener("submit", function (event) {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-once]").forEach(function (form) {
      delete form.dataset.sent;
    });
  });

  // On a narrow screen the tabs scroll: the one that is open shows.
  document.querySelectorAll(".tabs [aria-current]").forEach(function (tab) {
    tab.scrollIntoView({ block: "nearest", inline: "center" });
  });

  // An open menu closes when one clicks elsewhere or presses Escape.
  function closeMenus(except) {
    document.querySelectorAll("details.menu[open]").forEach(function (menu) {
      if (menu !== except) menu.open = false;
    });
  }
  document.addEventListener("click", function (event) {
    closeMenus(event.target.closest("details.menu"));
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    var menu = document.activeElement.closest("details.menu[open]");
    closeMenus(null);
    if (menu) menu.querySelector("summary").focus();
  });
})();
