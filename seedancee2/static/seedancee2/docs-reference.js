// Draws the OpenAPI document for reading.
(function () {
  "use strict";

  // The reader would fetch a mark from its maker's host. The page's policy forbids it; here it is not even asked for,
  // and the reader is told that there is none, so that it leaves it out.
  var source = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");

  function isFromElsewhere(image, address) {
    var url = new URL(address, location.href);
    var isOther = url.protocol !== "data:" && url.origin !== location.origin;
    if (isOther) {
      window.setTimeout(function () {
        image.dispatchEvent(new Event("error"));
      });
    }
    return isOther;
  }

  HTMLImageElement.prototype.setAttribute = function (name, value) {
    if (name === "src" && isFromElsewhere(this, value)) return;
    Element.prototype.setAttribute.call(this, name, value);
  };
  Object.defineProperty(HTMLImageElement.prototype, "src", {
    configurable: true,
    enumerable: true,
    get: source.get,
    set: function (value) {
      if (!isFromElsewhere(this, value)) source.set.call(this, value);
    },
  });

  var place = document.getElementById("reference");
  window.Redoc.init(
    place.dataset.schema,
    {
      nativeScrollbars: true,
      scrollYOffset: ".readers-top",
      theme: {
        colors: { primary: { main: "#4338ca" } },
        typography: { fontFamily: "inherit", headings: { fontFamily: "inherit" } },
      },
    },
    place
  );
})();
