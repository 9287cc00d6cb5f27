/** Modal dialogs by the browser's own <dialog>: focus stays inside, Escape closes, focus goes back afterwards. */

import { useEffect, useRef } from "../../vendor/preact.js";

/** @param {() => void} onClose called for Escape and for a tap beside the dialog */
export function useDialog(onClose) {
  const dialog = useRef(null);
  useEffect(() => {
    const element = dialog.current;
    const cancel = (event) => {
      event.preventDefault();
      onClose();
    };
    const beside = (event) => event.target === element && onClose();
    element.addEventListener("cancel", cancel);
    element.addEventListener("click", beside);
    element.showModal();
    return () => {
      element.removeEventListener("cancel", cancel);
      element.removeEventListener("click", beside);
      element.close();
    };
  }, []);
  return dialog;
}
