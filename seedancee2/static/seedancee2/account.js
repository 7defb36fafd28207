// Passwords that can be shown, and passkeys that say what went wrong. Every page works without this file save passkeys.
(function () {
  "use strict";

  document.querySelectorAll("input[type=password]").forEach(function (input) {
    var frame = document.createElement("div");
    var button = document.createElement("button");
    frame.className = "shown-or-not";
    button.type = "button";
    button.className = "button plain";
    button.setAttribute("aria-controls", input.id);
    input.parentNode.insertBefore(frame, input);
    frame.append(input, button);

    function set(isShown) {
      input.type = isShown ? "text" : "password";
      button.textContent = isShown ? "Hide" : "Show";
      button.setAttribute("aria-label", isShown ? "Hide password" : "Show password");
    }
    set(false);
    button.addEventListener("click", function () {
      set(input.type === "password");
    });
    // A browser remembers a password only of a field that is one.
    if (input.form) {
      input.form.addEventListener("submit", function () {
        set(false);
      });
    }
  });

  document.querySelectorAll("[data-without-script]").forEach(function (element) {
    element.hidden = true;
  });

  var buttons = document.querySelectorAll("[data-passkey]");
  if (!window.PublicKeyCredential) {
    if (buttons.length && !document.getElementById("passkey_login")) {
      say("This browser has no passkeys. Use another one, or an authenticator app.");
    }
    return;
  }
  buttons.forEach(function (button) {
    button.hidden = false;
    // Return in a field does what the button does, and never sends the form without a passkey.
    if (button.type === "button") {
      button.form.addEventListener("submit", function (event) {
        event.preventDefault();
        button.click();
      });
    }
    button.addEventListener("click", function () {
      say("");
    });
  });

  // By then allauth's scripts have run, which do the talking with the browser.
  document.addEventListener("DOMContentLoaded", function () {
    buttons.forEach(function (button) {
      var data = button.dataset;
      var ids = { credential: data.credential, passwordless: data.passwordless, data: "js_data" };
      ids[data.role] = button.id;
      window.allauth.webauthn.forms[data.passkey]({ ids: ids });
    });
  });

  document.addEventListener("allauth.error", function (event) {
    var name = event.detail.exception && event.detail.exception.name;
    event.preventDefault();
    if (name === "NotAllowedError" || name === "AbortError") {
      say("The passkey was not used: the dialogue was closed, or it took too long. Try again.");
    } else if (name === "InvalidStateError") {
      say("This device has a passkey for your account already.");
    } else if (name === "SecurityError") {
      // Browsers allow no passkey for a bare address such as 127.0.0.1.
      say("Passkeys need the name of a host, not " + window.location.hostname + ".");
    } else {
      say("The passkey did not work. Try again, or sign in another way.");
    }
  });

  function say(text) {
    var note = document.getElementById("passkey-error");
    if (!note) return;
    note.textContent = text;
    note.hidden = !text;
  }
})();
