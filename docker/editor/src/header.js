// The header of every page: the school, the way to the other pages, the language, the person.
import {chooseLocale, LOCALES, texts} from './texts.js';
import {ask, element} from './page.js';

/**
 * @param {{t, locale: string, person, branding: {school?: string, logo?: string, source: string}, here: string,
 * middle?: Node[], beforeLogOut?: () => Promise<boolean>}} options - `middle` is what the page adds.
 */
export function header ({t, locale, person, branding, here, middle = [], beforeLogOut = async () => true}) {
    const link = (page, label) => element('a', {href: page, 'aria-current': page === here ? 'page' : null}, label);
    const languages = LOCALES.filter(each => each !== locale).map(each => element('button', {
        type: 'button', class: 'quiet', lang: each, onclick: () => {
            chooseLocale(each);
            location.reload();
        }
    }, texts(each)('language')));
    const logOut = element('button', {
        type: 'button', class: 'quiet', onclick: async () => {
            if (await beforeLogOut()) await leave(person);
        }
    }, t('logOut'));
    return element('header', {class: 'school'},
        element('a', {href: '/', class: 'brand'},
            branding.logo ? element('img', {src: branding.logo, alt: ''}) : null,
            branding.school || t('titleSuffix')),
        person.user === null ? null : element('nav', {},
            link('/projects', t('myProjects')),
            link('/shared', t('sharedWithMe')),
            person.isStaff ? link('/pupils', t('pupils')) : null),
        element('div', {class: 'middle'}, middle),
        element('div', {class: 'right'},
            languages,
            person.user === null ? null : element('span', {class: 'user'}, person.user.username),
            person.user === null ? null : logOut));
}

/** Log out, and show the first page. */
export async function leave (person) {
    await person.logOut();
    location.assign('/');
}

/** Whether the person wants to log out although there is unsaved work, which is then removed from this computer. */
export async function confirmLogOut ({t, drafts, person}) {
    const left = await drafts.of(person.user.id).catch(() => []);
    if (left.length > 0) {
        const anyway = await ask({
            title: t('logOutTitle'),
            body: [element('p', {}, t('logOutText')), element('ul', {}, left.map(each => element('li', {}, each.title)))],
            choices: [[false, t('cancel')], [true, t('logOutAnyway')]],
            escape: false
        });
        if (!anyway) return false;
        for (const each of left) await drafts.remove(person.user.id, each.key);
    }
    return true;
}
