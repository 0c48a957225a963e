// Small helpers of our pages: elements, dialogs, dates.

/**
 * An element. `attributes` has attributes and, as functions, listeners (`onclick`); children are nodes or texts.
 * Texts become text nodes, so that no name of a pupil is read as HTML.
 */
export function element (name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) continue;
        if (typeof value === 'function') made.addEventListener(key.slice('on'.length), value);
        else made.setAttribute(key, value === true ? '' : value);
    }
    made.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
    return made;
}

let dialogs = 0;

/**
 * Ask by a modal dialog. `choices` is a list of [value, label]; the first is the suggested one.
 * Resolves to the value; to `escape` when the person closes the dialog by the keyboard, or does not let them without it.
 */
export function ask ({title, body = [], choices, escape}) {
    return new Promise(resolve => {
        const heading = `dialog-${++dialogs}`;
        const close = value => {
            dialog.close();
            dialog.remove();
            resolve(value);
        };
        const buttons = choices.map(([value, label], index) => element('button', {
            type: 'button', class: index === 0 ? 'primary' : null, autofocus: index === 0, onclick: () => close(value)
        }, label));
        const dialog = element('dialog', {'aria-labelledby': heading},
            element('h2', {id: heading}, title),
            element('div', {class: 'dialog-body'}, body),
            element('div', {class: 'dialog-buttons'}, buttons));
        dialog.addEventListener('cancel', event => {
            event.preventDefault();
            if (escape !== undefined) close(escape);
        });
        document.body.append(dialog);
        dialog.showModal();
    });
}

/** Ask for a line of text; resolves to null when the person gives up or leaves it empty. */
export async function askText ({title, label, value, maxLength, accept, cancel}) {
    const field = element('input', {type: 'text', value, maxlength: maxLength, id: 'asked-text'});
    const answer = ask({
        title,
        body: [element('label', {for: 'asked-text'}, label), field],
        choices: [[true, accept], [false, cancel]],
        escape: false
    });
    field.focus();
    field.select();
    field.addEventListener('keydown', event => {
        if (event.key === 'Enter') field.closest('dialog').querySelector('button.primary').click();
    });
    return (await answer) ? field.value.trim() || null : null;
}

/** A moment of the back end, ISO 8601 in UTC without a zone, as a Date. */
export function moment (text) {
    return new Date(/Z|[+-]\d\d:\d\d$/.test(text) ? text : `${text}Z`);
}

/** A Date in the language and the time zone of this browser. */
export function shown (date, locale) {
    return new Intl.DateTimeFormat(locale, {dateStyle: 'medium', timeStyle: 'short'}).format(date);
}
