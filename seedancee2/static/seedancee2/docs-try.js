// Draws the OpenAPI document with a form for each call. The key stays in this tab and is gone when it is closed.
(function () {
  "use strict";

  window.SwaggerUIBundle({
    url: document.getElementById("try").dataset.schema,
    dom_id: "#try",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    // Else a picture would be fetched from a validator elsewhere, and the document's address told to it.
    validatorUrl: null,
  });
})();
